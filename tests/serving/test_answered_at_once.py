"""A single list is ranked in the event loop, unless it has to wait for somebody: then in a thread, like the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from components.core.errors import WouldWaitError
from components.core.settings import load_settings
from serving.app import create_app
from serving.asking import AT_ONCE_ITEMS
from serving.fresh import FreshBehaviour, FreshEvent, FreshStoreError
from serving.online import OnlineStoreError, OnlineUser
from serving.state import ServiceState

KNOWN = "household-77"


class Reader:
    """A store of one user, which is busy or down when told so, and notes where it is asked."""

    def __init__(self) -> None:
        self.is_busy = self.is_down = False
        self.asked: list[str] = []

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        self.asked.append("loop" if _is_in_loop() else "thread")
        if self.is_down:
            raise OnlineStoreError("gone")
        return OnlineUser(["dairy-0"], [1.0], [1.0], {}, 60.0) if user_id == KNOWN else None

    def read_at_once(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        if self.is_busy:
            self.asked.append("busy")
            raise WouldWaitError
        return self.read(user_id, now=now)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture(params=["bundle", "wall"])
def client(request: pytest.FixtureRequest, bundle_folder: Path, tmp_path: Path, reader: Reader) -> Iterator[TestClient]:
    clock = {} if request.param == "bundle" else {"clock": "wall"}
    settings = load_settings(home=tmp_path, serve={"bundle": str(bundle_folder), **clock})
    state = ServiceState(settings)
    state.refresh()
    app = create_app(settings, state=state, reader=reader)
    yield TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))
    app.state.behaviour.stop()


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/recommend", json={"user_id": KNOWN, "k": 3, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def fallbacks(client: TestClient, reason: str) -> float:
    start = f'basketweave_fallbacks_total{{reason="{reason}"}}'
    return sum(float(line.split()[-1]) for line in client.get("/metrics").text.splitlines() if line.startswith(start))


def test_a_list_is_made_where_the_request_arrives_and_reads_once(client: TestClient, reader: Reader) -> None:
    assert recommend(client)["source"] == "online_store"
    assert reader.asked == ["loop"]


def test_a_busy_store_is_waited_for_in_a_thread(client: TestClient, reader: Reader) -> None:
    at_once = recommend(client)
    reader.is_busy, reader.asked = True, []
    waited = recommend(client)
    assert reader.asked == ["busy", "thread"]
    assert (waited["items"], waited["source"]) == (at_once["items"], "online_store")


def test_a_long_stock_list_is_looked_up_in_a_thread(client: TestClient, reader: Reader) -> None:
    recommend(client, in_stock=["bread-0", "bread-1", *(f"x{n}" for n in range(AT_ONCE_ITEMS))])
    assert reader.asked == ["thread"]


def test_what_an_answer_did_without_is_counted_once(client: TestClient, reader: Reader) -> None:
    class Away:
        is_remote = True

        def read(self, users: list[str]) -> list[list[FreshEvent]]:
            raise FreshStoreError("gone")

        def close(self) -> None: ...

    client.app.state.behaviour.fresh.store = Away()  # type: ignore[attr-defined]
    reader.is_down = reader.is_busy = True
    before = {reason: fallbacks(client, reason) for reason in ("online_store", "fresh_store")}
    assert sorted(recommend(client)["degraded"]) == ["fresh_store", "online_store"]
    assert {reason: fallbacks(client, reason) - before[reason] for reason in before} == {
        "online_store": 1,
        "fresh_store": 1,
    }


class Remote:
    """A fresh store behind a network; it counts how often it is asked."""

    is_remote = True

    def __init__(self) -> None:
        self.reads = 0

    def read(self, users: list[str]) -> list[list[FreshEvent]]:
        self.reads += 1
        return [[FreshEvent("e", "i", 1.0, 0.0)] for _ in users]


def test_fresh_events_at_hand_need_no_waiting_and_others_do() -> None:
    store = Remote()
    fresh = FreshBehaviour(store, poll_seconds=1)  # type: ignore[arg-type]
    with pytest.raises(WouldWaitError):
        fresh.of("u", at_once=True)
    assert store.reads == 0
    assert fresh.of("u") == fresh.of("u", at_once=True)
    assert store.reads == 1
