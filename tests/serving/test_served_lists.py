"""What is logged of the lists that were served, and lists for many users at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from components.core.observations import read_observations
from components.core.settings import load_settings
from components.core.store import Store
from serving.app import create_app
from serving.line_log import LineLog
from serving.observations import Recorder
from serving.rollout import Routed
from serving.served_log import ServedLog
from tests.serving.event_worker import (
    KNOWN,
    STRANGER,
    counted,
    event,
    recommend,
    send,
    settings_of,
)
from tests.serving.test_api_answers import ids
from tests.serving.test_fresh_stores import redis_url as redis_url  # a fixture


def logged(client: TestClient) -> list[dict[str, Any]]:
    client.app.state.behaviour.served.flush()  # type: ignore[attr-defined]
    files = sorted(Path(settings_of(client).artifact_root).glob("served/*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_served_list_is_logged_with_its_propensity_and_what_happened_on_it(worker: TestClient) -> None:
    answer = recommend(worker, user_id=KNOWN, k=2, category="DAIRY")
    send(worker, event(ids(answer)[0], "click", user=KNOWN, list_id=answer["list_id"]))
    recommend(worker, k=1)
    first, click, second = logged(worker)
    assert first.pop("at") == click.pop("at")
    pseudonym = first.pop("user")
    assert len(pseudonym) == 32
    assert first == {
        "kind": "list",
        "list_id": answer["list_id"],
        "arm": None,
        "bundle": answer["bundle"],
        "source": "online_store",
        "items": [
            {"item_id": item["item_id"], "position": place, "score": item["score"]}
            for place, item in enumerate(answer["items"], start=1)
        ],
        "propensity": 1.0,
        "request": {"k": 2, "category": "DAIRY"},
    }
    assert click == {
        "kind": "event",
        "list_id": answer["list_id"],
        "item_id": ids(answer)[0],
        "event_type": "click",
    }
    assert second["user"] is None
    assert KNOWN not in json.dumps([first, click, second])


def test_a_pseudonym_is_the_same_on_every_worker_and_another_in_another_home(
    make_worker: Callable[..., TestClient], bundle_folder: Path, tmp_path: Path
) -> None:
    one, other = make_worker(), make_worker()
    elsewhere = create_app(load_settings(home=tmp_path / "elsewhere"))
    named = [app.state.behaviour.pseudonyms.of(KNOWN) for app in (one.app, other.app, elsewhere)]  # type: ignore[attr-defined]
    assert named[0] == named[1] != named[2]
    assert oct((tmp_path / "demo" / "pseudonym.key").stat().st_mode)[-3:] == "600"


def test_the_logged_share_is_the_settings(tmp_path: Path) -> None:
    log = ServedLog(Store(str(tmp_path)), worker="w", share=0.25, max_mb=1)
    chosen = sum(log.chooses(f"{n * 2**20:08x}" + "0" * 24) for n in range(4096))
    assert chosen == 1024
    assert not ServedLog(Store(str(tmp_path)), worker="w", share=0, max_mb=1).chooses("0" * 32)


def test_of_logged_lists_the_oldest_go_beyond_the_settings_size(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for day in ("2020-01-03", "2020-01-01", "2020-01-02"):
        LineLog(store, "served", worker="w").append([b"x" * 999], day=day)
    ServedLog(store, worker="w", share=1, max_mb=0.0021).tidy()
    assert sorted(path.parent.name for path in tmp_path.glob("served/*/*")) == ["2020-01-02", "2020-01-03"]


def test_logged_lists_show_what_they_are_made_of(worker: TestClient) -> None:
    start = 'basketweave_list_statistic_sum{statistic="categories_an_item"}'
    before = counted(worker, start)
    recommend(worker, k=5, category="DAIRY")
    assert counted(worker, start) == pytest.approx(before + 1 / 5)


def test_a_batch_answers_what_single_requests_answer(worker: TestClient) -> None:
    send(worker, event("bread-0"))
    users = [KNOWN, STRANGER, "nobody", KNOWN]
    for conditions in (
        {"k": 5, "reasons": True},
        {"k": 5, "include_seen": True, "reasons": True},
        {"k": 4, "category": "BREAD", "exclude": ["bread-3"], "reasons": True},
        {"k": 6, "diversity": 0.7, "price_max": 3.0, "reasons": True},
        {"k": 3, "reasons": False},
    ):
        batch = worker.post("/recommend/batch", json={"user_ids": users, **conditions})
        assert batch.status_code == 200, batch.text
        lists = batch.json()["lists"]
        assert len({one["list_id"] for one in lists}) == len(users)
        for user, one in zip(users, lists, strict=True):
            single = recommend(worker, user_id=user, **conditions)
            assert ids(one) == ids(single)
            for name in ("source", "bundle", "fresh_events", "feature_age_seconds", "degraded", "propensity"):
                assert one[name] == single[name]
            for mine, its in zip(one["items"], single["items"], strict=True):
                assert mine["score"] == pytest.approx(its["score"], rel=1e-5)
                assert mine["shares"] == pytest.approx(its["shares"], abs=1e-5)
                assert (mine["reasons"], mine["title"]) == (its["reasons"], its["title"])
    assert lists[0]["items"][0]["reasons"] == []


def test_a_batch_is_one_read_of_the_online_store_and_bounded(make_worker: Callable[..., TestClient]) -> None:
    client = make_worker(max_batch_users=5)
    asked: list[int] = []
    reader = client.app.state.reader  # type: ignore[attr-defined]
    read_many = reader.read_many
    reader.read_many = lambda user_ids, now: (asked.append(len(user_ids)), read_many(user_ids, now=now))[1]
    assert client.post("/recommend/batch", json={"user_ids": ["a", "b", KNOWN]}).status_code == 200
    assert asked == [3]
    too_many = client.post("/recommend/batch", json={"user_ids": ["a"] * 6})
    assert (too_many.status_code, too_many.json()["detail"]) == (422, "'user_ids' may have at most 5 entries.")
    assert client.post("/recommend/batch", json={"user_ids": []}).status_code == 422


def test_a_logged_line_on_an_object_store_survives_in_segments() -> None:
    store = Store("memory://served-segments")
    log = LineLog(store, "feedback", worker="w", segment_bytes=20)
    for n in range(5):
        log.append([f'{{"n": {n}}}'.encode()], day="2020-01-01")
    names = store.list_dir("feedback/2020-01-01")
    assert names == ["w-0.jsonl", "w-1.jsonl"]
    lines = [
        line for name in names for line in store.fs.cat_file(store.path(f"feedback/2020-01-01/{name}")).splitlines()
    ]
    assert [json.loads(line)["n"] for line in lines] == [0, 1, 2, 3, 4]


def test_a_write_that_fails_midway_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LineLog(Store(str(tmp_path)), "feedback", worker="w")
    log.append([b"first"], day="2020-01-01")

    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("serving.line_log.os.fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            log.append([b"second"], day="2020-01-01")
    log.append([b"third"], day="2020-01-01")
    assert (tmp_path / "feedback/2020-01-01/w.jsonl").read_text() == "first\nthird\n"


def test_each_list_of_a_batch_counts_in_its_arm_but_not_in_how_long_requests_take(
    worker: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, store = worker.app.state.service, Store(str(tmp_path / "store"))  # type: ignore[attr-defined]
    recorder = Recorder(store, rollout="r1", worker="w1", every_seconds=60)

    def route(user: str) -> Routed:
        arm = "challenger" if user == KNOWN else "control"
        return Routed(state.current, arm, cluster=3, step="canary-10", recorder=recorder)

    monkeypatch.setattr(state, "route_many", lambda users: [route(user) for user in users])
    assert worker.post("/recommend/batch", json={"user_ids": ["a", KNOWN, "b"]}).status_code == 200
    recorder.flush(at_once=True)
    step = read_observations(store, "r1").step("canary-10")
    control, challenger = step.arm("control"), step.arm("challenger")
    assert (control.requests, control.fallbacks, control.clusters) == (2, 2, {3: (2, 0, 0)})
    assert (challenger.requests, challenger.fallbacks, challenger.errors) == (1, 0, 0)
    assert (control.timed, challenger.timed) == (0, 0)


def test_a_challenger_that_breaks_costs_a_batch_nothing(worker: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, whole: Any) -> None:
            self.clock, self.lists, self.bundle = whole.clock, whole.lists, whole.bundle

        def recommend_many(self, *_: Any, **__: Any) -> list[Any]:
            raise ValueError("broken")

    state = worker.app.state.service  # type: ignore[attr-defined]
    broken = Broken(state.current)
    routed = {user: Routed(broken if user == KNOWN else state.current) for user in ("a", KNOWN, "b")}
    monkeypatch.setattr(state, "route_many", lambda users: [routed[user] for user in users])
    before = counted(worker, 'basketweave_fallbacks_total{reason="challenger"}')
    lists = worker.post("/recommend/batch", json={"user_ids": ["a", KNOWN, "b"], "k": 2}).json()["lists"]
    assert [one["source"] for one in lists] == ["popularity", "online_store", "popularity"]
    assert [one["degraded"] for one in lists] == [[], ["challenger"], []]
    assert counted(worker, 'basketweave_fallbacks_total{reason="challenger"}') == before + 1
