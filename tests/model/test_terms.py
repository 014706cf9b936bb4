"""The counted terms of the score, worked out by hand on six items."""

from __future__ import annotations

from math import log, log1p

import pytest
import torch
from six_items import FILTER, NUM_ITEMS, RECENT_I, USERS_I, attributes, counted

from components.model.attributes import ItemAttributes
from components.model.histories import Histories
from components.model.terms import AFFINITY_PRIOR, FILTER_FLOOR, REPEAT_FLOOR

# (users + 1) by category: dairy 52, bakery 17, home 1, unknown 5
DAIRY, BAKERY, HOME = 52 / 75, 17 / 75, 1 / 75


@pytest.fixture
def buyer() -> Histories:
    """A purchase of bread now, two views of milk 28 days ago."""
    return Histories.from_lists([[2, 0]], [[1.0, 0.4]], [[0, 28]])


def test_popularity_is_the_log_of_users_ever_and_of_late(buyer: Histories) -> None:
    terms = counted().compute(buyer)
    assert terms["popularity"].tolist() == [pytest.approx([log1p(users) for users in USERS_I])]
    assert terms["recent_popularity"].tolist() == [pytest.approx([log1p(users) for users in RECENT_I])]


def test_affinity_is_the_smoothed_share_of_a_value_over_its_share_among_all(buyer: Histories) -> None:
    affinity = counted().compute(buyer)["affinity_category"][0].tolist()
    total = 1.4 + AFFINITY_PRIOR
    dairy = log((0.4 + AFFINITY_PRIOR * DAIRY) / total / DAIRY)
    bakery = log((1.0 + AFFINITY_PRIOR * BAKERY) / total / BAKERY)
    home = log(AFFINITY_PRIOR / total)
    assert affinity == pytest.approx([dairy, dairy, bakery, bakery, 0, home], abs=1e-6)
    assert bakery > 0 > home


def test_age_weakens_a_taste(buyer: Histories) -> None:
    affinity = counted(half_life_days=28).compute(buyer)["affinity_category"][0, 0].item()
    assert affinity == pytest.approx(log((0.2 + AFFINITY_PRIOR * DAIRY) / (1.2 + AFFINITY_PRIOR) / DAIRY), abs=1e-6)


def test_an_unknown_value_is_no_taste() -> None:
    soap = Histories.from_lists([[4]], [[1.0]], [[0]])
    affinity = counted().compute(soap)["affinity_category"][0].tolist()
    assert affinity[4] == 0
    assert affinity[0] == pytest.approx(log(AFFINITY_PRIOR / (1 + AFFINITY_PRIOR)), abs=1e-6)


def test_the_filter_is_taken_in_units_of_its_own_row_over_a_floor(buyer: Histories) -> None:
    raw = FILTER.toarray()[2] * 1.0 + FILTER.toarray()[0] * 0.4
    rms = (raw**2).mean() ** 0.5
    expected = [log(value / rms + FILTER_FLOOR) for value in raw]
    assert counted().compute(buyer)["filter"][0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_filter_says_nothing_to_a_user_that_it_does_not_reach() -> None:
    soap_and_nobody = Histories.from_lists([[4], []], [[1.0], []], [[0], []])
    assert counted().compute(soap_and_nobody)["filter"].unique().tolist() == [pytest.approx(log(FILTER_FLOOR))]


def test_repeat_is_the_users_own_decayed_count_and_nothing_else(buyer: Histories) -> None:
    buyer = Histories(buyer.indptr, buyer.items, buyer.weights, torch.tensor([0.0, 84.0]))
    expected = [log1p(0.2 / REPEAT_FLOOR), 0, log1p(1 / REPEAT_FLOOR), 0, 0, 0]
    assert counted().repeat(buyer)[0].tolist() == pytest.approx(expected)


def test_terms_of_one_user_do_not_hang_on_who_else_is_asked_for(buyer: Histories) -> None:
    together = Histories.from_lists([[4], [2, 0], []], [[1.0], [1.0, 0.4], []], [[3.0], [0.0, 28.0], []])
    terms = counted(half_life_days=28)
    alone, among = terms.compute(buyer), terms.compute(together)
    for name, term in alone.items():
        torch.testing.assert_close(term[0], among[name].expand(3, NUM_ITEMS)[1])
    assert tuple(alone) == terms.names


def test_codes_follow_the_sorted_values_and_none_is_unknown() -> None:
    described = attributes()
    assert described.codes("category").tolist() == [2, 2, 1, 1, 0, 3]
    assert described.size("category") == 4
    without = ItemAttributes.from_columns({}, num_items=3, affinity_names=[])
    assert (without.codes_IA.shape, without.sizes) == ((3, 0), ())
