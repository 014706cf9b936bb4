"""What the API answers, over HTTP in process, from a small real bundle and a reader whose users are written here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
import torch
from fastapi.testclient import TestClient

from components.core.settings import Settings, load_settings
from components.model.histories import Histories
from components.model.ranking import top_k
from serving.app import create_app
from serving.online import OnlineStoreError, OnlineUser
from serving.state import ServiceState

DAY_SECONDS = 86_400.0
KNOWN = "household-77"


class Reader:
    """An online store of one user; `is_down` makes it fail as a lost Redis would."""

    def __init__(self) -> None:
        self.is_down = False
        self.asked_at: datetime | None = None

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        self.asked_at = now
        if self.is_down:
            raise OnlineStoreError("connection refused")
        if user_id != KNOWN:
            return None
        return OnlineUser(
            items=["dairy-0", "dairy-1", "gone"],
            weights=[2.0, 1.0, 1.0],
            ages_days=[1.0, 12.0, 30.0],
            statistics={"recency_days": 1.0, "frequency": 3.0, "monetary": float("nan")},
            age_seconds=2 * DAY_SECONDS,
        )

    read_at_once = read


@pytest.fixture(scope="module")
def settings(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("home"), serve={"bundle": str(bundle_folder), "max_k": 30, "max_history": 20}
    )


@pytest.fixture(scope="module")
def state(settings: Settings) -> ServiceState:
    state = ServiceState(settings)
    state.refresh()
    assert state.reason is None
    return state


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def client(settings: Settings, state: ServiceState, reader: Reader) -> TestClient:
    app = create_app(settings, state=state, reader=reader)
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))


@pytest.fixture
def recommend(client: TestClient) -> Callable[..., dict[str, Any]]:
    def ask(**body: Any) -> dict[str, Any]:
        answer = client.post("/recommend", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def counted(client: TestClient, line_start: str) -> float:
    """The value of one sample of /metrics, 0 where it is not there yet."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start))


def test_a_known_user_gets_new_items_from_their_history(recommend, state: ServiceState) -> None:
    answer = recommend(user_id=KNOWN, k=5)
    assert answer["source"] == "online_store"
    assert answer["feature_age_seconds"] == 2 * DAY_SECONDS
    assert answer["bundle"] == state.current.bundle.sha256
    assert answer["degraded"] == answer["unknown_items"] == []
    assert len(ids(answer)) == 5
    assert not {"dairy-0", "dairy-1"} & set(ids(answer))


def test_who_buys_dairy_is_shown_dairy_and_who_buys_bread_is_shown_bread(recommend) -> None:
    for kind in ("dairy", "bread"):
        first = ids(recommend(items=[f"{kind}-0", f"{kind}-1"], k=3))
        assert [item.split("-")[0] for item in first] == [kind] * 3


def test_an_answer_names_its_items_and_says_why(recommend) -> None:
    item = recommend(items=["bread-0"], k=1)["items"][0]
    assert (item["category"], item["brand"]) in {("BREAD", "Own"), ("BREAD", "Other")}
    assert item["title"] == item["item_id"].replace("-", " ").title()
    assert item["price"] == pytest.approx(1 + (10 + int(item["item_id"][-1])) / 10)
    assert item["reasons"] == ["Goes with Bread 0"]
    assert sum(item["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_the_list_is_the_bundles_own_ranking(recommend, state: ServiceState) -> None:
    bundle = state.current.bundle
    history = Histories.from_lists([[bundle.items.index["bread-0"]]], [[1.0]], [[0.0]])
    scores = bundle.scorer.score(history, torch.full((1, 2), torch.nan))
    best, values = top_k(scores, k=8, histories=history)
    answer = recommend(items=["bread-0"], k=8)
    assert ids(answer) == [bundle.items.item_ids[item] for item in best[0].tolist()]
    assert [item["score"] for item in answer["items"]] == pytest.approx(values[0].tolist())


def test_scores_fall_along_the_list(recommend) -> None:
    scores = [item["score"] for item in recommend(user_id=KNOWN, k=20)["items"]]
    assert scores == sorted(scores, reverse=True)


def test_an_unknown_user_gets_what_is_popular(recommend, client: TestClient) -> None:
    before = counted(client, 'basketweave_fallbacks_total{reason="unknown_user"}')
    answer = recommend(user_id="nobody", k=5)
    assert answer["source"] == "popularity"
    assert answer["feature_age_seconds"] is None
    assert ids(answer) == ids(recommend(k=5))
    assert counted(client, 'basketweave_fallbacks_total{reason="unknown_user"}') == before + 1


def test_recent_items_alone_are_enough(recommend) -> None:
    answer = recommend(items=["dairy-0", {"item_id": "dairy-1", "weight": 2, "age_days": 3}], k=5)
    assert answer["source"] == "request"
    assert not {"dairy-0", "dairy-1"} & set(ids(answer))


def test_items_that_the_bundle_does_not_know_are_told(recommend) -> None:
    answer = recommend(items=["dairy-0", "pear", "pear", {"item_id": "fig"}], k=1)
    assert answer["unknown_items"] == ["pear", "fig"]
    assert answer["source"] == "request"
    assert recommend(items=["pear"], k=1)["source"] == "popularity"


def test_history_and_request_are_joined(recommend) -> None:
    answer = recommend(user_id=KNOWN, items=["bread-0"], k=30)
    assert answer["source"] == "both"
    assert not {"dairy-0", "dairy-1", "bread-0"} & set(ids(answer))


def test_an_item_in_both_has_the_sum_of_weights_and_the_younger_age(recommend, state: ServiceState) -> None:
    bundle = state.current.bundle
    history = Histories.from_lists(
        [[bundle.items.index["dairy-0"], bundle.items.index["dairy-1"]]], [[5, 1]], [[0, 12]]
    )
    scores = bundle.scorer.score(history, torch.tensor([[1.0, 3.0]]), include_seen=True)
    answer = recommend(user_id=KNOWN, items=[{"item_id": "dairy-0", "weight": 3.0}], k=1, include_seen=True)
    assert answer["items"][0]["item_id"] == "dairy-0"
    assert answer["items"][0]["score"] == pytest.approx(float(scores[0, 0]))


def test_a_fresh_event_changes_the_list(recommend) -> None:
    assert ids(recommend(user_id=KNOWN, k=10)) != ids(recommend(user_id=KNOWN, items=["bread-0", "bread-1"], k=10))


def test_what_is_bought_again_can_be_asked_for(recommend) -> None:
    assert ids(recommend(user_id=KNOWN, k=2, include_seen=True))[0] == "dairy-0"


def test_a_category_and_exclusions_are_kept_to(recommend) -> None:
    answer = recommend(user_id=KNOWN, k=30, category="BREAD", exclude=["bread-0", "never-heard-of"])
    assert {item["category"] for item in answer["items"]} == {"BREAD"}
    assert sorted(ids(answer)) == [f"bread-{n}" for n in range(1, 10)]


def test_a_misspelt_category_is_answered_with_the_nearest(client: TestClient) -> None:
    answer = client.post("/recommend", json={"category": "DIARY"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "No item has the category 'DIARY'. Did you mean 'DAIRY'?"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [({"k": 31}, "'k' may be at most 30."), ({"items": ["a"] * 21}, "'items' may have at most 20 entries.")],
)
def test_the_settings_bounds_hold(client: TestClient, body: dict[str, Any], sentence: str) -> None:
    answer = client.post("/recommend", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)


def test_a_list_is_as_long_as_there_are_items(recommend) -> None:
    everything = [f"bread-{n}" for n in range(10)]
    assert recommend(category="BREAD", exclude=everything)["items"] == []
    assert len(recommend(category="BREAD", k=30)["items"]) == 10


def test_the_online_store_being_down_is_no_error(recommend, reader: Reader, client: TestClient) -> None:
    reader.is_down = True
    before = counted(client, 'basketweave_fallbacks_total{reason="online_store"}')
    alone = recommend(user_id=KNOWN, k=5)
    assert (alone["source"], alone["degraded"]) == ("popularity", ["online_store"])
    helped = recommend(user_id=KNOWN, items=["dairy-0"], k=5)
    assert (helped["source"], helped["degraded"]) == ("request", ["online_store"])
    assert counted(client, 'basketweave_fallbacks_total{reason="online_store"}') == before + 2
    history = client.get(f"/users/{KNOWN}/history")
    assert history.status_code == 503
    assert "connection" not in history.text


def test_histories_are_aged_to_the_bundles_as_of(recommend, reader: Reader, state: ServiceState) -> None:
    recommend(user_id=KNOWN)
    assert reader.asked_at == state.current.bundle.as_of


def test_similar_items_are_of_a_kind_and_leave_out_the_item(client: TestClient) -> None:
    answer = client.post("/similar", json={"item_id": "dairy-3", "k": 4}).json()
    assert answer["item"]["title"] == "Dairy 3"
    assert [item["category"] for item in answer["items"]] == ["DAIRY"] * 4
    assert "dairy-3" not in ids(answer)


def test_an_unknown_item_is_404(client: TestClient) -> None:
    answer = client.post("/similar", json={"item_id": "pear"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "This bundle has no item 'pear'.")


def test_a_history_has_names_most_recent_first(client: TestClient) -> None:
    answer = client.get(f"/users/{KNOWN}/history").json()
    assert [(item["title"], item["weight"], item["age_days"]) for item in answer["items"]] == [
        ("Dairy 0", 2.0, 1.0),
        ("Dairy 1", 1.0, 12.0),
        ("gone", 1.0, 30.0),
    ]
    assert answer["statistics"] == {"recency_days": 1.0, "frequency": 3.0, "monetary": None}
    assert client.get("/users/nobody/history").status_code == 404


def test_items_are_found_by_name_or_id(client: TestClient) -> None:
    def found(text: str, **parameters: int) -> list[str]:
        return ids(client.get("/items", params={"q": text, **parameters}).json())

    assert found("dairy 3") == ["dairy-3"]
    assert found("bread-7") == ["bread-7"]
    assert len(found("BREAD", limit=4)) == 4
    assert found("no such thing") == []


def test_the_model_says_which_bundle_answers_and_how(client: TestClient, state: ServiceState) -> None:
    model = client.get("/model").json()
    bundle = state.current.bundle
    assert (model["bundle"], model["items"]) == (bundle.sha256, len(bundle.items.item_ids))
    assert model["clock"] == model["as_of"] == bundle.as_of.isoformat()
    assert model["cutoff"] == bundle.cutoff.isoformat()
    assert set(model["terms"]) == set(bundle.scorer.term_names)
    assert model["categories"] == ["BREAD", "DAIRY", "FRUIT", "SNACKS"]


def test_ready_names_the_bundle(client: TestClient, state: ServiceState) -> None:
    answer = client.get("/readyz")
    sha256 = state.current.bundle.sha256
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "bundle": sha256, "reason": None, "workers": {sha256: 1}}


def test_no_user_is_named_in_logs_or_metrics(
    client: TestClient, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for is_down in (False, True):
        reader.is_down = is_down
        client.post("/recommend", json={"user_id": KNOWN})
        client.get(f"/users/{KNOWN}/history")
    client.get(f"/users/{KNOWN}")  # no such route
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("serving")]
    assert ours
    assert not [line for line in ours if KNOWN in line]
    metrics = client.get("/metrics").text
    assert KNOWN not in metrics
    assert 'endpoint="/users/{user_id}/history"' in metrics
    assert 'endpoint="other",status="404"' in metrics


def test_metrics_have_latency_outcomes_bundle_and_feature_age(
    client: TestClient, recommend, state: ServiceState
) -> None:
    bundle = state.current.bundle
    starts = [
        'basketweave_request_seconds_count{endpoint="/recommend"}',
        'basketweave_requests_total{endpoint="/recommend",status="200"}',
        f'basketweave_recommendations_total{{bundle="{bundle.sha256[:12]}",source="online_store"}}',
        "basketweave_feature_age_seconds_count",
    ]
    before = [counted(client, start) for start in starts]
    recommend(user_id=KNOWN)
    assert [counted(client, start) for start in starts] == [value + 1 for value in before]
    info = f'basketweave_bundle_info{{bundle="{bundle.sha256[:12]}",cutoff="{bundle.cutoff.date()}"}}'
    assert counted(client, info) == 1


def test_a_worker_loads_by_itself_and_leaves_the_list_of_workers(
    bundle_folder: Path, reader: Reader, tmp_path: Path
) -> None:
    settings = load_settings(home=tmp_path, serve={"bundle": str(bundle_folder)})
    app = create_app(settings, reader=reader)
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        deadline = time.monotonic() + 20
        while not client.get("/readyz").json()["workers"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/readyz").json()["ready"]
        assert client.post("/recommend", json={"user_id": KNOWN}).json()["source"] == "online_store"
    assert app.state.service.workers() == {}


BODIES = [
    '{"user_id": "1", "k": 3}',
    '{"user_id": "1", "k": 3.0}',
    '{"user_id": "1", "k": 3.5}',
    '{"user_id": "1", "k": "3"}',
    '{"user_id": "1", "k": true}',
    '{"user_id": "1", "k": 1e2}',
    '{"user_id": "1", "k": 99999999999999999999999}',
    '{"user_id": 1}',
    '{"user_id": null, "items": ["bread-1"]}',
    '{"user_id": "1", "user_id": "2"}',
    '{"user_id": "1", "price_min": NaN}',
    '{"user_id": "1", "price_max": Infinity}',
    '{"user_id": "1", "price_min": 1, "price_max": 2}',
    '{"user_id": "1", "price_min": "1"}',
    '{"user_id": "1", "reasons": "no"}',
    '{"user_id": "1", "exclude": {"bread-1": 1}}',
    '{"items": [{"item_id": "bread-1", "weight": 1, "age_days": 2.5}, "bread-2"]}',
    '{"items": "bread-1"}',
    '{"user_id": "\\ud800"}',
    '{"user_id": "1"} ',
    '{"user_id": "1"} {}',
    '{"nobody": "1"}',
    "[]",
    "null",
    "",
    "{",
]


@pytest.mark.parametrize("body", BODIES)
def test_a_body_is_taken_or_refused_alike_on_the_short_way_and_on_fastapis(worker: TestClient, body: str) -> None:
    short, long = (
        worker.post("/recommend", content=body.encode(), headers={"Content-Type": kind})
        for kind in ("application/json", "application/json; charset=utf-8")
    )
    assert short.status_code == long.status_code
    assert {**short.json(), "list_id": ""} == {**long.json(), "list_id": ""}


def test_a_sound_request_takes_the_short_way(worker: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def long_way(**_: object) -> None:
        raise AssertionError("FastAPI was asked to read the body.")

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", long_way)
    assert worker.post("/recommend", json={"user_id": "1", "k": 3}).json()["items"]
    with pytest.raises(AssertionError, match="read the body"):
        worker.post("/recommend", json={"user_id": 1})
