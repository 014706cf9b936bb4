"""Events over HTTP: what is kept of them, whose lists they change, and what happens where a store is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from components.core.settings import load_settings
from serving.app import create_app
from serving.fresh import FreshStoreError
from serving.state import ServiceState
from tests.serving.event_worker import (
    KNOWN,
    STRANGER,
    Reader,
    counted,
    event,
    feedback_rows,
    recommend,
    send,
    settings_of,
)
from tests.serving.test_api_answers import ids
from tests.serving.test_fresh_stores import redis_url as redis_url  # a fixture


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
