"""People answer served lists: position bias, taste, novelty, and probabilities that the clicks keep to."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from components.core.errors import ContractError
from components.core.schemas import EVENTS
from components.simulate.clicks import ClickModel, ClickSettings
from components.simulate.settings import WorldSettings
from components.simulate.world import World

MOMENT = datetime(2024, 1, 10, 12, tzinfo=UTC)
K = 10


@pytest.fixture(scope="module")
def world() -> World:
    world = World(WorldSettings(users=500, items=200, days=10, seed=1))
    for _ in range(8):
        for _batch in world.live_day():
            pass
    return world


def random_lists(world: World, count: int) -> tuple[list[str], list[list[str]]]:
    rng = np.random.default_rng(5)
    users = [f"u{number:07d}" for number in rng.integers(world.settings.users, size=count)]
    lists = [[f"i{number:07d}" for number in rng.permutation(world.settings.items)[:K]] for _ in range(count)]
    return users, lists


def test_clicks_come_at_the_rate_that_the_answer_states(world: World) -> None:
    answer = ClickModel(world).answer(*random_lists(world, 4000), moment=MOMENT, first_list=0)
    expected = answer.click_probability.sum()
    assert abs(answer.is_clicked.sum() - expected) < 4 * expected**0.5


def test_lower_places_are_clicked_less_as_the_power_says(world: World) -> None:
    answer = ClickModel(world, ClickSettings(position_exponent=1.0)).answer(
        *random_lists(world, 8000), moment=MOMENT, first_list=0
    )
    by_place = answer.is_clicked.mean(axis=0)
    assert by_place[0] / by_place[1] == pytest.approx(2, rel=0.25)
    assert answer.examination[0].tolist() == pytest.approx([1 / place for place in range(1, K + 1)])


def test_without_position_bias_every_place_is_looked_at(world: World) -> None:
    model = ClickModel(world, ClickSettings(position_exponent=0))
    answer = model.answer(*random_lists(world, 10), moment=MOMENT, first_list=0)
    assert (answer.examination == 1).all()


def test_a_list_after_ones_taste_is_clicked_more_than_anything(world: World) -> None:
    model = ClickModel(world)
    users = np.arange(world.settings.users)
    favourite = world.population.tastes[users, world.population.weights[users].argmax(axis=1)]
    liked = np.array([np.flatnonzero(world.catalog.topic == topic)[0] for topic in favourite])[:, None]
    anything = np.random.default_rng(2).integers(world.settings.items, size=(len(users), 1))
    assert model.attraction(users, liked).mean() > 2 * model.attraction(users, anything).mean()


def test_what_was_bought_lately_attracts_less_than_before(world: World) -> None:
    model = ClickModel(world)
    bought = world.population.bought
    user = int(np.flatnonzero(bought.max(axis=1) >= 0)[0])
    item = int(bought[user].max())
    users, items = np.array([user]), np.array([[item]])
    after = model.attraction(users, items)[0, 0]
    remembered = bought[user].copy()
    bought[user] = -1
    before = model.attraction(users, items)[0, 0]
    bought[user] = remembered
    assert np.log(before / (1 - before)) - np.log(after / (1 - after)) == pytest.approx(2 * ClickSettings().novelty)


def test_answers_are_events_of_the_contract_with_a_click_after_its_impression(world: World) -> None:
    model = ClickModel(world)
    answer = model.answer(*random_lists(world, 300), moment=MOMENT, first_list=40)
    table = model.events(answer)
    assert table.schema.equals(EVENTS)
    rows = table.to_pylist()
    impressions = [row for row in rows if row["event_type"] == "impression"]
    clicks = [row for row in rows if row["event_type"] == "click"]
    assert len(impressions) == 300 * K
    assert len(clicks) == answer.is_clicked.sum() > 0
    assert len({row["event_id"] for row in rows}) == len(rows)
    shown = {(row["session_id"], row["item_id"]): row["timestamp"] for row in impressions}
    assert all(row["timestamp"] > shown[row["session_id"], row["item_id"]] for row in clicks)
    assert rows[0]["session_id"] == "l240110-00000040"


def test_exposures_carry_the_probabilities_of_an_off_policy_estimate(world: World) -> None:
    model = ClickModel(world)
    answer = model.answer(*random_lists(world, 50), moment=MOMENT, first_list=0)
    exposures = model.exposures(answer)
    assert exposures["position"].to_pylist()[:K] == list(range(1, K + 1))
    product = np.array(exposures["examination"]) * np.array(exposures["attraction"])
    assert product.sum() == pytest.approx(answer.click_probability.sum())


def test_equal_list_numbers_give_equal_answers_and_others_differ(world: World) -> None:
    model = ClickModel(world)
    users, lists = random_lists(world, 500)
    first, again, other = (model.answer(users, lists, moment=MOMENT, first_list=number) for number in (0, 0, 1))
    assert (first.is_clicked == again.is_clicked).all()
    assert (first.is_clicked != other.is_clicked).any()


def test_short_lists_and_strangers_are_answered_without_taste(world: World) -> None:
    model = ClickModel(world, ClickSettings(base_attraction=20))
    answer = model.answer(["somebody", "u0000001"], [["i0000001"], []], moment=MOMENT, first_list=0)
    assert answer.is_clicked.tolist() == [[True], [False]]
    assert answer.click_probability[1, 0] == 0
    assert model.events(answer)["user_id"].to_pylist() == [None, None]


def test_an_item_of_another_shop_is_refused_by_name(world: World) -> None:
    with pytest.raises(ContractError, match="'sku-9', which is no item of this world"):
        ClickModel(world).answer(["u0000001"], [["sku-9"]], moment=MOMENT, first_list=0)
