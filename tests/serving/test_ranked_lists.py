"""What a list keeps to: prices, stock, diversity by a case worked out by hand, and the probability of a drawn list."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from components.core.settings import load_settings
from components.model.rules import NO_LIST_RULES, ListRules
from serving.app import create_app
from serving.lists import Exploration, diverse, explored
from serving.schemas import ListConditions
from serving.state import ServiceState
from tests.serving.test_api_answers import ids
from tests.serving.test_api_guards import NobodyKnown


@pytest.fixture(scope="module")
def client(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    settings = load_settings(home=tmp_path_factory.mktemp("home"), serve={"bundle": str(bundle_folder)})
    state = ServiceState(settings)
    state.refresh()
    app = create_app(settings, state=state)
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_prices_keep_to_both_bounds_which_count_themselves(client: TestClient) -> None:
    answer = recommend(client, k=40, price_min=1.5, price_max=2)
    assert sorted(item["price"] for item in answer["items"]) == [1.5, 1.6, 1.7, 1.8, 1.9, 2.0]
    assert len(recommend(client, k=40, price_min=4.5)["items"]) == 5
    assert recommend(client, k=40, price_max=0)["items"] == []


def test_price_bounds_that_leave_nothing_are_a_mistake(client: TestClient) -> None:
    answer = client.post("/recommend", json={"price_min": 2, "price_max": 1})
    assert (answer.status_code, answer.json()["detail"]) == (422, "'price_min' may not be more than 'price_max'.")


def test_only_what_is_in_stock_is_listed(client: TestClient) -> None:
    stock = ["bread-3", "dairy-1", "never-heard-of", "fruit-9"]
    assert sorted(ids(recommend(client, k=40, in_stock=stock))) == ["bread-3", "dairy-1", "fruit-9"]
    assert ids(recommend(client, in_stock=stock, category="BREAD")) == ["bread-3"]
    assert sorted(ids(recommend(client, in_stock=stock, exclude=["bread-3"]))) == ["dairy-1", "fruit-9"]
    assert recommend(client, in_stock=[])["items"] == []


def test_more_diversity_brings_more_kinds_and_all_of_it_none_of_the_score(client: TestClient) -> None:
    def kinds(diversity: float) -> int:
        answer = recommend(client, items=["dairy-0", "dairy-1"], k=4, diversity=diversity)
        return len({item["category"] for item in answer["items"]})

    assert (kinds(0.0), kinds(1.0)) == (1, 4)
    plain = ids(recommend(client, items=["dairy-0"], k=8))
    assert ids(recommend(client, items=["dairy-0"], k=8, diversity=1e-9)) == plain
    assert ids(recommend(client, items=["dairy-0"], k=8, diversity=0.9))[0] == plain[0]


def conditions(**given: Any) -> ListConditions:
    return ListConditions(**given)


# Four candidates on two axes: 0 and 1 are the same thing, 2 is at a right angle, 3 is opposite to 0.
VECTORS = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], dtype=np.float32)
POOL = np.array([7, 5, 3, 1])
VALUES = np.array([4.0, 3.0, 2.0, 0.0])  # relevance 1, 0.75, 0.5, 0


def test_marginal_relevance_is_the_papers_sum() -> None:
    # d = .5. After 0: 1 has .375 - .5, 2 has .25 - 0, 3 has 0 + .5. After 3: 1 has .375 - .5, 2 has .25 - 0.
    assert diverse(VECTORS, POOL, VALUES, NO_LIST_RULES, conditions(k=4, diversity=0.5)) == [0, 3, 2, 1]
    assert diverse(VECTORS, POOL, VALUES, NO_LIST_RULES, conditions(k=3, diversity=0)) == [0, 1, 2]
    # d = .2. After 0: 1 has .6 - .2, 2 has .4 - 0: equals go to the better score.
    assert diverse(VECTORS, POOL, VALUES, NO_LIST_RULES, conditions(k=2, diversity=0.2)) == [0, 1]


def test_diverse_lists_keep_the_merchandisers_rules() -> None:
    rules = ListRules({7: frozenset({1}), 1: frozenset({7})})
    assert diverse(VECTORS, POOL, VALUES, rules, conditions(k=4, diversity=0.5)) == [0, 2, 1]


def test_a_drawn_lists_probability_is_how_often_it_comes() -> None:
    rules = ListRules({5: frozenset({3}), 3: frozenset({5})})
    exploration = Exploration(share=0.6, temperature=2.0)
    draws = 6_000
    seen: Counter[tuple[int, ...]] = Counter()
    probability: dict[tuple[int, ...], float] = {}
    for seed in range(draws):
        places, propensity = explored([0, 1], POOL, VALUES, rules, exploration=exploration, seed=seed)
        seen[tuple(places)] += 1
        assert probability.setdefault(tuple(places), propensity) == propensity
    assert sum(probability.values()) == pytest.approx(1)  # every list that can come has come
    assert len(probability) == 4 * 3 - 2  # all pairs but those that the rule keeps apart
    for places, count in seen.items():
        expected = probability[places]
        assert abs(count / draws - expected) < 5 * (expected * (1 - expected) / draws) ** 0.5
    assert seen[0, 1] / draws > 0.4  # the ranked list, beside its own draws


def test_the_same_list_id_draws_the_same_list_and_no_share_draws_none() -> None:
    exploration = Exploration(share=1.0, temperature=2.0)
    one, other = (explored([0, 1], POOL, VALUES, NO_LIST_RULES, exploration=exploration, seed=5) for _ in range(2))
    assert one == other
    never = Exploration(share=0.0)
    assert explored([0, 1], POOL, VALUES, NO_LIST_RULES, exploration=never, seed=5) == ([0, 1], 1.0)


def test_explored_lists_tell_their_propensity_over_http(bundle_folder: Path, tmp_path: Path) -> None:
    serve = {"bundle": str(bundle_folder), "exploration": 0.5, "exploration_temperature": 1.0, "served_log_share": 0}
    settings = load_settings(home=tmp_path, serve=serve)
    state = ServiceState(settings)
    state.refresh()
    app = create_app(settings, state=state, reader=NobodyKnown())
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000))
    answers = [recommend(client, items=["dairy-0"], k=3) for _ in range(30)]
    assert len({tuple(ids(answer)) for answer in answers}) > 1
    for answer in answers:
        assert 0 < answer["propensity"] < 1
        assert "dairy-0" not in ids(answer)
    batch = client.post("/recommend/batch", json={"user_ids": ["a", "b"], "k": 3}).json()["lists"]
    assert all(0 < one["propensity"] < 1 for one in batch)
