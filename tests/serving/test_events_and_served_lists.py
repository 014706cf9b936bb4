"""Events over HTTP: what is kept of them, whose lists they change, and what is logged of the lists that were served."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from components.core.settings import Settings, load_settings
from components.core.store import Store
from serving.app import create_app
from serving.fresh import FreshStoreError
from serving.line_log import LineLog
from serving.online import OnlineUser
from serving.rollout import Routed
from serving.served_log import ServedLog
from serving.state import ServiceState
from tests.serving.test_api_answers import ids
from tests.serving.test_fresh_stores import redis_url as redis_url  # a fixture

KNOWN, STRANGER = "household-77", "marked-stranger-4711"


class Reader:
    """A store of one user, whose features are of the first of March."""

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        if user_id != KNOWN:
            return None
        return OnlineUser(["dairy-0"], [1.0], [1.0], {}, 0.0, moment=now)

    def read_many(self, user_ids: list[str], *, now: datetime) -> list[OnlineUser | None]:
        return [self.read(user_id, now=now) for user_id in user_ids]


@pytest.fixture
def make_worker(bundle_folder: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """make_worker(**serve settings): one more worker of the same service."""
    opened: list[TestClient] = []

    def make(**serve: Any) -> TestClient:
        settings = load_settings(home=tmp_path, serve={"bundle": str(bundle_folder), **serve})
        state = ServiceState(settings)
        state.refresh()
        app = create_app(settings, state=state, reader=Reader())
        opened.append(TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)))
        return opened[-1]

    yield make
    for client in opened:
        client.app.state.behaviour.stop()  # type: ignore[attr-defined]


@pytest.fixture
def worker(make_worker: Callable[..., TestClient]) -> TestClient:
    return make_worker(served_log_share=1.0)


def send(client: TestClient, *events: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = client.post("/events", json={"events": list(events)})
    assert answer.status_code == status, answer.text
    return answer.json()


def event(item: str, kind: str = "view", *, user: str = STRANGER, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_type": kind, **more}


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def feedback_rows(settings: Settings) -> list[dict[str, Any]]:
    files = sorted(Path(settings.artifact_root).glob("feedback/*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def settings_of(client: TestClient) -> Settings:
    return client.app.state.service.settings  # type: ignore[attr-defined, no-any-return]


def counted(client: TestClient, line_start: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start))


def test_the_next_list_of_a_stranger_reflects_what_they_just_did(worker: TestClient) -> None:
    assert recommend(worker, user_id=STRANGER)["source"] == "popularity"
    said = send(worker, event("bread-0"), event("bread-1", "purchase"))
    assert said == {"accepted": 2, "over_limit": 0, "out_of_time": 0, "unknown_items": [], "degraded": []}
    answer = recommend(worker, user_id=STRANGER, k=3)
    assert (answer["source"], answer["fresh_events"]) == ("events", 2)
    assert [item.split("-")[0] for item in ids(answer)] == ["bread"] * 3
    assert not {"bread-0", "bread-1"} & set(ids(answer))


def test_every_worker_reflects_it_after_its_next_look(make_worker: Callable[..., TestClient]) -> None:
    one, other = make_worker(), make_worker(fresh_poll_seconds=0.05)
    other.app.state.behaviour.fresh.start()  # type: ignore[attr-defined]
    assert recommend(other, user_id=STRANGER)["fresh_events"] == 0
    send(one, event("bread-0"))
    deadline = time.monotonic() + 10
    while recommend(other, user_id=STRANGER)["fresh_events"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_known_users_events_join_their_features_which_hold_the_earlier_ones(worker: TestClient) -> None:
    now = worker.app.state.service.current.clock()  # type: ignore[attr-defined]
    before, after = (now + timedelta(days=days) for days in (-1, 1))
    send(worker, event("bread-0", user=KNOWN, timestamp=before.isoformat()))
    assert recommend(worker, user_id=KNOWN)["fresh_events"] == 0
    send(worker, event("bread-1", user=KNOWN, timestamp=after.isoformat()))
    answer = recommend(worker, user_id=KNOWN, k=30)
    assert (answer["source"], answer["fresh_events"]) == ("online_store", 1)
    assert not {"dairy-0", "bread-1"} & set(ids(answer))
    assert recommend(worker, user_id=KNOWN, items=["fruit-0"])["source"] == "both"


def test_an_impression_is_kept_and_changes_no_list(worker: TestClient) -> None:
    assert send(worker, event("bread-0", "impression"))["accepted"] == 1
    assert recommend(worker, user_id=STRANGER)["source"] == "popularity"
    assert [row["event_type"] for row in feedback_rows(settings_of(worker))] == ["impression"]


def test_kept_events_are_the_contracts_lines(worker: TestClient) -> None:
    full = event("bread-0", "purchase", event_id="e1", session_id="s1", quantity=2, price=3.5, list_id="0" * 32)
    send(worker, {**full, "timestamp": "2020-02-29T23:00:00+01:00"}, event("pear"))
    now = worker.app.state.service.current.clock()  # type: ignore[attr-defined]
    first, second = feedback_rows(settings_of(worker))
    assert first == {
        "event_id": "e1",
        "user_id": STRANGER,
        "item_id": "bread-0",
        "event_type": "purchase",
        "timestamp": "2020-02-29T22:00:00+00:00",
        "session_id": "s1",
        "quantity": 2.0,
        "price": 3.5,
    }
    assert (second["item_id"], second["timestamp"]) == ("pear", now.isoformat())
    assert len(second["event_id"]) == 32
    assert [path.parent.name for path in Path(settings_of(worker).artifact_root).glob("feedback/*/*")] == ["2020-03-01"]


def test_items_that_the_bundle_does_not_know_yet_are_kept_and_told(worker: TestClient) -> None:
    assert send(worker, event("pear"), event("bread-0"))["unknown_items"] == ["pear"]
    assert len(feedback_rows(settings_of(worker))) == 2


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"event_type": "steal"}, "'event_type' is one of cart, click, impression, "),
        ({"item_id": " "}, "'user_id' and 'item_id' are neither blank nor hold a NUL byte."),
        ({"user_id": "a\0b"}, "'user_id' and 'item_id' are neither blank nor hold a NUL byte."),
        ({"usr": "x"}, "events.0.usr: this field is unknown."),
        ({"timestamp": "2020-01-01T00:00:00"}, "events.0.timestamp: Input should have timezone info."),
        ({"price": -1}, "events.0.price: Input should be greater than 0."),
    ],
)
def test_a_bad_event_is_refused_and_none_of_the_request_is_kept(
    worker: TestClient, bad: dict[str, Any], sentence: str
) -> None:
    answer = worker.post("/events", json={"events": [{**event("bread-0"), **bad}, event("bread-1")]})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)
    assert feedback_rows(settings_of(worker)) == []


def test_more_events_than_the_setting_allows_are_refused(make_worker: Callable[..., TestClient]) -> None:
    client = make_worker(max_events=2)
    assert client.post("/events", json={"events": [event("a")] * 3}).json()["detail"] == (
        "'events' may have at most 2 entries."
    )
    assert client.post("/events", json={"events": []}).status_code == 422


def test_on_the_wall_clock_the_future_and_the_far_past_are_left_out(make_worker: Callable[..., TestClient]) -> None:
    client = make_worker(clock="wall")
    now = datetime.now().astimezone()
    moments = [now + timedelta(hours=1), now - timedelta(days=31), now - timedelta(hours=1)]
    said = send(client, *(event("bread-0", timestamp=moment.isoformat()) for moment in moments))
    assert (said["accepted"], said["out_of_time"]) == (1, 2)
    assert len(feedback_rows(settings_of(client))) == 1


def test_one_user_cannot_weigh_more_in_a_day_than_the_caps_allow(make_worker: Callable[..., TestClient]) -> None:
    client = make_worker(max_user_weight=3, max_key_user_weight=2.5)
    before = counted(client, 'basketweave_events_total{kind="purchase",outcome="over_limit"}')
    said = send(client, *(event(f"bread-{n}", "purchase") for n in range(5)), event("fruit-0", user=KNOWN))
    assert (said["accepted"], said["over_limit"]) == (3, 3)
    assert [row["item_id"] for row in feedback_rows(settings_of(client))] == ["bread-0", "bread-1", "fruit-0"]
    assert recommend(client, user_id=STRANGER)["fresh_events"] == 2
    assert counted(client, 'basketweave_events_total{kind="purchase",outcome="over_limit"}') == before + 3
    assert send(client, event("bread-9", "purchase"))["accepted"] == 0  # the day's, not the request's


class Away:
    """A fresh store that is gone."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fail(*_: Any, **__: Any) -> Any:
            raise FreshStoreError("gone")

        return fail

    def close(self) -> None: ...


def test_without_the_fresh_store_lists_and_events_go_on_and_say_so(worker: TestClient) -> None:
    worker.app.state.behaviour.fresh.store = Away()  # type: ignore[attr-defined]
    before = counted(worker, 'basketweave_fallbacks_total{reason="fresh_store"}')
    answer = recommend(worker, user_id=KNOWN)
    assert (answer["source"], answer["degraded"]) == ("online_store", ["fresh_store"])
    assert send(worker, event("bread-0"))["degraded"] == ["fresh_store"]
    assert len(feedback_rows(settings_of(worker))) == 1
    assert counted(worker, 'basketweave_fallbacks_total{reason="fresh_store"}') == before + 2
    assert recommend(worker, items=["bread-0"])["degraded"] == []


def test_without_the_fresh_store_each_worker_keeps_the_caps_itself(make_worker: Callable[..., TestClient]) -> None:
    client = make_worker(max_user_weight=2, max_key_user_weight=2)
    client.app.state.behaviour.fresh.store = Away()  # type: ignore[attr-defined]
    assert send(client, *(event("bread-0", "purchase") for _ in range(3)))["accepted"] == 2
    assert send(client, event("bread-0", "purchase"))["accepted"] == 0


def test_events_that_cannot_be_written_are_not_accepted_and_change_nothing(worker: TestClient) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    worker.app.state.behaviour.feedback._write = full  # type: ignore[attr-defined]
    answer = send(worker, event("bread-0"), status=503)
    assert answer["detail"] == "The events could not be written down, so none of them counts. Send them again."
    assert recommend(worker, user_id=STRANGER)["fresh_events"] == 0


def test_no_event_names_its_user_in_logs_metrics_or_the_fresh_store(
    worker: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    send(worker, event("bread-0", "purchase"))
    recommend(worker, user_id=STRANGER)
    worker.app.state.behaviour.feedback._write = None  # type: ignore[attr-defined]  # a defect, with its traceback
    send(worker, event("bread-1", "purchase"), status=503)
    assert caplog.records
    assert STRANGER not in caplog.text
    assert STRANGER not in worker.get("/metrics").text
    home = settings_of(worker).project_home
    for file in (home / "service").glob("fresh.db*"):
        assert STRANGER.encode() not in file.read_bytes()


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


def test_forgetting_a_user_needs_admin_to_be_switched_on(make_worker: Callable[..., TestClient]) -> None:
    assert make_worker().post("/admin/forget", json={"user_id": STRANGER}).status_code == 404
    client = make_worker(admin=True)
    send(client, event("bread-0"))
    assert client.post("/admin/forget", json={"user_id": STRANGER}).json() == {"forgotten": 1}
    assert recommend(client, user_id=STRANGER)["source"] == "popularity"
    assert client.post("/admin/refresh").json()["ready"]


def test_without_a_bundle_events_are_kept_all_the_same(tmp_path: Path) -> None:
    client = TestClient(
        create_app(load_settings(home=tmp_path)), base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)
    )
    assert send(client, event("bread-0"))["accepted"] == 1
    assert client.post("/recommend", json={}).status_code == 503


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


def test_a_challenger_that_breaks_costs_a_batch_nothing(worker: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, whole: Any) -> None:
            self.clock, self.lists, self.bundle = whole.clock, whole.lists, whole.bundle

        def recommend_many(self, *_: Any, **__: Any) -> list[Any]:
            raise ValueError("broken")

    state = worker.app.state.service  # type: ignore[attr-defined]
    broken = Broken(state.current)
    monkeypatch.setattr(state, "route", lambda user: Routed(broken if user == KNOWN else state.current))
    before = counted(worker, 'basketweave_fallbacks_total{reason="challenger"}')
    lists = worker.post("/recommend/batch", json={"user_ids": ["a", KNOWN, "b"], "k": 2}).json()["lists"]
    assert [one["source"] for one in lists] == ["popularity", "online_store", "popularity"]
    assert [one["degraded"] for one in lists] == [[], ["challenger"], []]
    assert counted(worker, 'basketweave_fallbacks_total{reason="challenger"}') == before + 1


def test_a_service_without_a_bundle_says_in_its_log_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(home=tmp_path, serve={"pointer_poll_seconds": 0.05})
    sentence = "There is no deploy pointer yet. Run the pipeline, or serve a bundle by --bundle."
    with TestClient(create_app(settings, reader=Reader()), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 20
        while client.get("/readyz").json()["reason"] != sentence:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        assert client.get("/readyz").status_code == 503
    said = [record.getMessage() for record in caplog.records if "Not ready" in record.getMessage()]
    assert said == [f"Not ready, nothing is recommended yet: {sentence}"]


@pytest.mark.slow
def test_pods_with_homes_of_their_own_share_what_users_did_by_redis(
    bundle_folder: Path, tmp_path: Path, redis_url: str
) -> None:
    pods = []
    for name in ("one", "other"):
        settings = load_settings(
            home=tmp_path / name,
            serve={
                "bundle": str(bundle_folder),
                "fresh_store": redis_url,
                "max_user_weight": 2,
                "max_key_user_weight": 2,
            },
            project="pods",
        )
        state = ServiceState(settings)
        state.refresh()
        app = create_app(settings, state=state, reader=Reader())
        pods.append(TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)))
        assert recommend(pods[-1], user_id=STRANGER)["fresh_events"] == 0
        app.state.behaviour.fresh.start()
    one, other = pods
    send(one, event("bread-0", "purchase"))
    time.sleep(1)
    assert recommend(other, user_id=STRANGER)["fresh_events"] == 1
    assert send(other, event("bread-1", "purchase"), event("bread-2", "purchase"))["accepted"] == 1  # one cap for both
    for pod in pods:
        pod.app.state.behaviour.stop()  # type: ignore[attr-defined]
