"""Keys with roles, how often they may ask, how slowly a body may come, and the command that makes a key."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from starlette.types import Message

from components.cli_settings import print_api_key
from components.core.errors import SettingsError
from components.core.settings import Settings, load_settings
from components.deploy.probe import own_key
from serving.app import create_app
from serving.limits import MOST_ROUNDS, BodyLimit, TokenBucket, Turns
from tests.serving.test_api_guards import NobodyKnown

KEYS = {"reader": ["recommend"], "tracker": ["feedback"], "operator": ["admin"], "shop": ["recommend", "feedback"]}


def digest(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def settings_with_keys(home: Path, **serve: Any) -> Settings:
    keys: list[Any] = [{"digest": digest(name), "roles": roles, "name": name} for name, roles in KEYS.items()]
    return load_settings(home=home, serve={"api_keys": [*keys, "plain"], "admin": True, **serve})


def client_of(settings: Settings) -> TestClient:
    app = create_app(settings, reader=NobodyKnown())
    return TestClient(app, base_url="http://shop.example", client=("10.1.2.3", 50_000))


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(settings_with_keys(tmp_path))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


ROUTES = [
    ("POST", "/recommend", "recommend"),
    ("POST", "/recommend/batch", "recommend"),
    ("POST", "/similar", "recommend"),
    ("GET", "/items?q=milk", "recommend"),
    ("GET", "/users/1/history", "recommend"),
    ("GET", "/model", "recommend"),
    ("GET", "/status.json", "recommend"),
    ("POST", "/events", "feedback"),
    ("POST", "/admin/forget", "admin"),
    ("POST", "/admin/refresh", "admin"),
]


@pytest.mark.parametrize(("method", "path", "role"), ROUTES)
def test_a_key_without_the_role_gets_403_and_nothing_else(
    client: TestClient, method: str, path: str, role: str
) -> None:
    for name, roles in {**KEYS, "plain": ["recommend", "feedback"]}.items():
        # A body that is no request at all: who may not ask does not learn that.
        answer = client.request(
            method, path, content=b"{", headers={**bearer(name), "Content-Type": "application/json"}
        )
        if role in roles:
            assert answer.status_code in (200, 422, 503)
        else:
            assert answer.status_code == 403
            assert answer.json() == {"detail": f"This API key has not the role '{role}'.", "fields": []}


def test_every_route_of_the_description_asks_for_a_key_but_the_probes(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    asked = {path for path, methods in paths.items() if all("security" in one for one in methods.values())}
    assert set(paths) - asked == {"/livez", "/readyz"}
    assert {path.partition("?")[0].replace("/users/1/", "/users/{user_id}/") for _, path, _ in ROUTES} == asked


def test_refusals_are_counted_by_reason(client: TestClient) -> None:
    def refused(reason: str) -> float:
        start = f'basketweave_refused_total{{reason="{reason}"}}'
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in client.get("/metrics").text.splitlines() if line.startswith(start)
        )

    before = {reason: refused(reason) for reason in ("role", "no_key", "unknown_key", "body")}
    client.post("/events", json={}, headers=bearer("reader"))
    client.post("/events", json={})
    client.post("/events", json={}, headers=bearer("nobody"))
    client.post("/events", content=b" " * 2_000_000, headers=bearer("tracker"))
    assert {reason: refused(reason) - count for reason, count in before.items()} == dict.fromkeys(before, 1)


def test_a_key_that_asks_too_often_is_told_when_to_come_again_and_others_are_served(tmp_path: Path) -> None:
    client = client_of(settings_with_keys(tmp_path, requests_per_second=0.01, request_burst=4, workers=2))
    statuses = [client.get("/model", headers=bearer("reader")).status_code for _ in range(4)]
    assert statuses == [503, 503, 429, 429]  # two workers: each grants half
    answer = client.get("/model", headers=bearer("reader"))
    assert int(answer.headers["Retry-After"]) > 100
    assert client.get("/model", headers=bearer("shop")).status_code == 503
    assert client.get("/livez").status_code == 200


def test_a_bucket_refills_steadily_and_never_beyond_its_burst() -> None:
    now = [0.0]
    bucket = TokenBucket(per_second=2, burst=3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0.5]
    now[0] = 0.5
    assert [bucket.take() for _ in range(2)] == [0, 0.5]
    now[0] = 100
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_body_that_dribbles_in_is_refused_and_one_that_is_whole_may_wait() -> None:
    refused: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except HTTPException as error:
            refused.append(error.status_code)
            return
        await receive()  # the end of the connection, much later

    async def ask(*pauses: float) -> None:
        waits = list(pauses)

        async def receive() -> Message:
            await asyncio.sleep(waits.pop(0))
            return {"type": "http.request", "body": b"x", "more_body": len(waits) > 1}

        limit = BodyLimit(app, max_bytes=100, timeout_seconds=0.1)
        await limit({"type": "http", "method": "POST", "headers": []}, receive, lambda _: asyncio.sleep(0))

    asyncio.run(ask(0.0, 0.0, 0.3))
    assert refused == []
    asyncio.run(ask(0.04, 0.04, 0.04, 0.04, 0.0))
    assert refused == [408]


def test_a_made_key_is_shown_once_and_its_line_lets_it_in(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.cli", "api-key", "--name", "web", "--role", "feedback"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    key = made.stdout.strip()
    line = next(line for line in made.stderr.splitlines() if line.startswith("api_keys"))
    assert key.startswith("bw_")
    assert len(key) == 46
    assert key not in made.stderr
    client = client_of(load_settings(home=tmp_path, serve=tomllib.loads(line)))
    assert client.post("/events", json={}, headers=bearer(key)).status_code == 422
    assert client.post("/recommend", json={}, headers=bearer(key)).status_code == 403


def test_a_role_or_a_name_that_no_key_can_have_makes_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    for name, roles in (("web", ["boss"]), ("Web Shop", ["recommend"])):
        with pytest.raises(SettingsError):
            print_api_key(name=name, roles=roles)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ([{"digest": digest("a"), "name": "x"}, {"digest": digest("b"), "name": "x"}], "two keys have one name"),
        ([digest("a")], "a digest stands in {digest"),
        ([{"digest": "sha256:abc", "name": "x"}], "should match pattern"),
        ([{"digest": digest("a"), "name": "x", "roles": []}], "at least 1 item"),
    ],
)
def test_keys_that_cannot_be_meant_are_refused(keys: list[Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_settings(serve={"api_keys": keys})


def test_the_pipeline_asks_with_its_own_key_or_the_first_plain_one(tmp_path: Path) -> None:
    def key(**settings: Any) -> str | None:
        found = own_key(load_settings(home=tmp_path, **settings))
        return None if found is None else found.get_secret_value()

    digests = [{"digest": digest("a"), "name": "a"}]
    assert key() is None
    assert key(serve={"api_keys": [*digests, "plain", "other"]}) == "plain"
    assert key(serve={"api_keys": digests}, deploy={"api_key": "own"}) == "own"
    with pytest.raises(SettingsError, match=r"Set deploy\.api_key"):
        key(serve={"api_keys": digests})


def test_the_settings_hold_no_key_that_can_be_read_back(tmp_path: Path) -> None:
    settings = settings_with_keys(tmp_path)
    shown = json.dumps(settings.model_dump(mode="json"))
    assert "plain" not in shown
    assert digest("reader") in shown


def rounds_before_each(turns: Turns, *, callers: int) -> list[tuple[int, int]]:
    """(caller, rounds of the loop until their turn) in the order of turns; work takes no round."""

    async def all_at_once() -> list[tuple[int, int]]:
        rounds = 0
        taken: list[tuple[int, int]] = []

        async def count() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        async def call(number: int) -> None:
            await turns.take()
            taken.append((number, rounds))

        counting = asyncio.create_task(count())
        await asyncio.gather(*(call(number) for number in range(callers)))
        counting.cancel()
        return taken

    return asyncio.run(all_at_once())


def test_one_caller_has_their_turn_after_one_round() -> None:
    turns = Turns()
    assert [rounds_before_each(turns, callers=1)[0][1] for _ in range(3)] == [2, 2, 2]


def test_the_more_are_waiting_the_more_rounds_the_loop_makes_before_the_next_has_a_turn() -> None:
    """Each round takes on who has come in between: in an overload they are counted, and sent away, not left waiting."""
    taken = rounds_before_each(Turns(), callers=40)
    assert [number for number, _ in taken] == list(range(40))
    rounds = [at for _, at in taken]
    between = [later - earlier for earlier, later in itertools.pairwise(rounds)]
    assert min(between[:20]) >= MOST_ROUNDS
    assert between[-1] <= 2


def test_who_gives_up_waiting_keeps_nobody_from_their_turn() -> None:
    async def scenario() -> int:
        turns = Turns()
        calls = [asyncio.create_task(turns.take()) for _ in range(3)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[1].cancel()
        await asyncio.wait_for(calls[2], timeout=5)
        await asyncio.wait_for(turns.take(), timeout=5)
        return turns.waiting

    assert asyncio.run(scenario()) == 0
