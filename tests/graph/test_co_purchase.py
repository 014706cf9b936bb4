"""Co-purchase: what met in one basket, by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from small_log import CUTOFF, ONE_IS_ENOUGH, bought, entries, log, worlds

from components.core.sections import GraphSettings
from components.graph import session_pairs
from components.graph.behaviour import co_purchase
from components.graph.relations import build_relation
from components.graph.session_pairs import BOUGHT, SessionEvents, SessionPairs, expand
from components.graph.world import ItemWorld

NO_DECAY = GraphSettings(min_distinct_users=1, half_life_days=1e9)


def test_edges_do_not_cross_sessions(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought("u1", "s1", "a", "b"), bought("u1", "s2", "c", "d"), bought("u2", None, "a", "c")))
    assert set(entries(co_purchase(shop, NO_DECAY), shop)) == {"a<b", "b<a", "c<d", "d<c"}


def test_weights_are_cosines_of_baskets(world: Callable[..., ItemWorld]) -> None:
    """a is in four baskets, b in one of them, c in two of them and in two more."""
    baskets = [("a", "b"), ("a", "c"), ("a", "c"), ("a",), ("c",), ("c",)]
    shop = world(log(*(bought(f"u{n}", f"s{n}", *items) for n, items in enumerate(baskets))))
    assert entries(co_purchase(shop, NO_DECAY), shop) == pytest.approx(
        {"a<b": 0.5, "b<a": 0.5, "a<c": 2 / 4, "c<a": 2 / 4}, rel=1e-5
    )


def test_what_is_old_counts_half_after_each_half_life(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought("u1", "s1", "a", "b", days_ago=10), bought("u2", "s2", "a", days_ago=20)))
    # met ½; a ½ + ¼, b ½
    expected = 0.5 / (0.75 * 0.5) ** 0.5
    assert entries(co_purchase(shop, ONE_IS_ENOUGH), shop) == pytest.approx(
        {"a<b": expected, "b<a": expected}, rel=1e-5
    )


def test_one_household_that_repeats_a_pair_makes_no_edge(world: Callable[..., ItemWorld]) -> None:
    repeated = [bought("u1", f"s{n}", "a", "b") for n in range(9)]
    shop = world(log(*repeated, bought("u2", "t", "a", "c"), bought("u3", "t3", "a", "c")), min_distinct_users=2)
    assert set(entries(co_purchase(shop, NO_DECAY), shop)) == {"a<c", "c<a"}
    shop = world(log(*repeated, bought("u2", "t", "b", "a")), min_distinct_users=2)
    assert entries(co_purchase(shop, NO_DECAY), shop) == pytest.approx({"a<b": 1, "b<a": 1})


@pytest.mark.parametrize("floor", [1, 2, 3, 4])
def test_the_floor_counts_people_whatever_it_is_and_as_of_each_cutoff(tmp_path: Path, floor: int) -> None:
    """u1 comes twice, then u2, then u1 again, then u3: a day apart, the last half a day before the cutoff."""
    events = log(
        *(bought(user, f"s{n}", "a", "b", days_ago=4.5 - n) for n, user in enumerate(["u1", "u1", "u2", "u1", "u3"]))
    )
    cutoffs = [CUTOFF - timedelta(days=days) for days in (4, 3, 2, 1, 0)]
    shops = worlds(tmp_path, events, cutoffs=cutoffs, min_distinct_users=floor)
    people = [1, 1, 2, 2, 3]
    assert [bool(entries(co_purchase(shop, NO_DECAY), shop)) for shop in shops] == [n >= floor for n in people]


def test_anonymous_sessions_count_as_a_person_each(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought(None, "s1", "a", "b"), bought(None, "s2", "b", "a")), min_distinct_users=2)
    found = entries(co_purchase(shop, NO_DECAY), shop)
    assert set(found) == {"a<b", "b<a"}
    assert shop.users_I.tolist() == [2, 2]


def test_only_what_is_bought_is_bought_together(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought("u1", "s1", "a"), bought("u1", "s1", "b", event_type="view")))
    assert entries(co_purchase(shop, NO_DECAY), shop) == {}


def test_an_item_twice_in_a_basket_is_there_once_and_not_beside_itself(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought("u1", "s1", "a", "a", "b")))
    assert set(entries(co_purchase(shop, NO_DECAY), shop)) == {"a<b", "b<a"}
    assert shop.pairs[BOUGHT].counts(cutoff=shop.cutoff_days, half_life_days=1e9)[2] == pytest.approx([1])


def test_a_wholesalers_basket_is_left_out(world: Callable[..., ItemWorld], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_pairs, "MAX_SESSION_ITEMS", 3)
    shop = world(log(bought("u1", "s1", "a", "b", "c", "d"), bought("u2", "s2", "a", "b", "c")))
    assert set(entries(co_purchase(shop, NO_DECAY), shop)) == {"a<b", "b<a", "a<c", "c<a", "b<c", "c<b"}
    _, _, met = shop.pairs[BOUGHT].counts(cutoff=shop.cutoff_days, half_life_days=1e9)
    assert met == pytest.approx([1, 1, 1])


def test_each_cutoff_counts_what_came_before_it(tmp_path: Path) -> None:
    """The pair a, b met once before each cutoff; the second event of the first meeting came a day after the first."""
    earlier = CUTOFF - timedelta(days=10)
    events = log(
        bought("u1", "s1", "a", days_ago=11),
        bought("u1", "s1", "b", days_ago=10),  # at the earlier cutoff, which excludes it
        bought("u2", "s2", "a", "c", days_ago=12),
        bought("u3", "s3", "b", "c", days_ago=0),  # at the later cutoff
    )
    before, after = worlds(tmp_path, events, cutoffs=(earlier, CUTOFF))
    assert set(entries(co_purchase(before, NO_DECAY), before)) == {"a<c", "c<a"}
    assert set(entries(co_purchase(after, NO_DECAY), after)) == {"a<c", "c<a", "a<b", "b<a"}


def test_a_session_that_goes_on_after_the_cutoff_counts_as_far_as_it_had_come(tmp_path: Path) -> None:
    earlier = CUTOFF - timedelta(days=10)
    had_met = bought("u1", "s1", "a", "b", days_ago=10.1)
    (alone,) = worlds(tmp_path, had_met, cutoffs=(earlier,))
    went_on = log(had_met, bought("u1", "s1", "a", "b", days_ago=9.9))
    before, _ = worlds(tmp_path, went_on, cutoffs=(earlier, CUTOFF))
    expected = entries(co_purchase(alone, ONE_IS_ENOUGH), alone)
    assert entries(co_purchase(before, ONE_IS_ENOUGH), before) == expected == pytest.approx({"a<b": 1, "b<a": 1})


def test_rows_keep_their_strongest_neighbours_and_sum_to_one(world: Callable[..., ItemWorld]) -> None:
    baskets = [("a", "b"), ("a", "b"), ("a", "c"), ("a", "c"), ("a", "d"), ("c",), ("d",)]
    shop = world(log(*(bought(f"u{n}", f"s{n}", *items) for n, items in enumerate(baskets))))
    settings = GraphSettings(min_distinct_users=1, half_life_days=1e9, neighbours_per_item=2)
    found = entries(build_relation("co_purchase", shop, settings), shop)
    ab, ac = 2 / (5 * 2) ** 0.5, 2 / (5 * 3) ** 0.5
    assert found == pytest.approx(
        {"a<b": ab / (ab + ac), "a<c": ac / (ab + ac), "b<a": 1, "c<a": 1, "d<a": 1}, rel=1e-5
    )


def met(*, chunk: int, num_items: int, monkeypatch: pytest.MonkeyPatch) -> SessionPairs:
    """Of forty sessions of five of nine items each."""
    draw = np.random.default_rng(3)
    item_E = np.concatenate([draw.choice(9, size=5, replace=False) for _ in range(40)])
    of_session = np.repeat(np.arange(40), 5)
    always = np.ones(200, dtype=bool)
    events = SessionEvents(
        item_E=item_E,
        session_E=of_session,
        actor_E=of_session % 7,
        moment_E=np.arange(200),
        day_E=np.zeros(200, dtype=np.int64),
        is_target_E=always,
        is_view_E=~always,
    )
    monkeypatch.setattr(session_pairs, "CHUNK", chunk)
    pairs = expand(events, num_items=num_items, is_wanted_day=always[:1])[BOUGHT]
    return SessionPairs.of(pairs, events, is_directed=False, num_items=num_items, min_distinct_users=6)


@pytest.mark.parametrize(("chunk", "num_items"), [(7, 9), (1 << 20, 1 << 29), (7, 1 << 29)])
def test_pairs_are_the_same_in_parts_and_where_pair_and_event_do_not_fit_into_one_integer(
    monkeypatch: pytest.MonkeyPatch, chunk: int, num_items: int
) -> None:
    whole = met(chunk=1 << 20, num_items=9, monkeypatch=monkeypatch)
    found = met(chunk=chunk, num_items=num_items, monkeypatch=monkeypatch)
    assert 0 < len(whole.source_G) < 9 * 8 / 2
    for column in ("group_P", "moment_P", "reached_G", "source_G", "target_G"):
        np.testing.assert_array_equal(getattr(found, column), getattr(whole, column))
