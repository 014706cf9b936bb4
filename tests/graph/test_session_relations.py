"""Looked at together, and looked at before another was bought: by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_log import ONE_IS_ENOUGH, bought, entries, log, viewed

from components.core.sections import GraphSettings
from components.graph.behaviour import co_view, view_then_buy
from components.graph.relations import build_relation
from components.graph.world import ItemWorld

NO_DECAY = GraphSettings(min_distinct_users=1, half_life_days=1e9)


def test_what_is_looked_at_in_one_session_meets(world: Callable[..., ItemWorld]) -> None:
    shop = world(
        log(viewed("u1", "s1", "a", "b"), viewed("u1", "s2", "a"), viewed("u2", "s3", "c"), bought("u2", "s3", "d"))
    )
    assert entries(co_view(shop, NO_DECAY), shop) == pytest.approx({"a<b": 0.5**0.5, "b<a": 0.5**0.5})


def test_a_click_is_a_look(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(viewed("u1", "s1", "a"), bought("u1", "s1", "b", event_type="click")))
    assert set(entries(co_view(shop, NO_DECAY), shop)) == {"a<b", "b<a"}


def test_what_is_bought_hears_from_what_was_looked_at_before_and_not_the_other_way(
    world: Callable[..., ItemWorld],
) -> None:
    shop = world(
        log(
            viewed("u1", "s1", "a", "b", days_ago=0.5),
            bought("u1", "s1", "b", days_ago=0.4),
            viewed("u1", "s1", "c", days_ago=0.3),  # too late
            viewed("u2", "s2", "b", days_ago=0.5),  # in another session
        )
    )
    assert entries(view_then_buy(shop, NO_DECAY), shop) == pytest.approx({"b<a": 1})


def test_a_look_at_the_moment_of_the_purchase_did_not_come_before_it(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(viewed("u1", "s1", "a", days_ago=0.4), bought("u1", "s1", "b", days_ago=0.4)))
    assert entries(view_then_buy(shop, NO_DECAY), shop) == {}


def test_looks_and_purchases_are_weighed_by_how_common_each_is(world: Callable[..., ItemWorld]) -> None:
    shop = world(
        log(
            viewed("u1", "s1", "a", days_ago=10.2),
            bought("u1", "s1", "b", days_ago=10),
            viewed("u2", "s2", "a", days_ago=10.2),
            *(bought(f"v{n}", f"t{n}", "b", days_ago=10) for n in range(3)),
        )
    )
    # met once; a looked at twice, b bought four times, everything as old
    assert entries(view_then_buy(shop, NO_DECAY), shop) == pytest.approx({"b<a": 1 / (2 * 4) ** 0.5})
    assert entries(view_then_buy(shop, ONE_IS_ENOUGH), shop)["b<a"] == pytest.approx(1 / (2 * 4) ** 0.5, rel=0.02)


def test_one_person_makes_no_edge_where_two_are_asked_for(world: Callable[..., ItemWorld]) -> None:
    events = log(
        *(log(viewed("u1", f"s{n}", "a", "c"), bought("u1", f"s{n}", "b", days_ago=0.4)) for n in range(5)),
        *(
            log(viewed(user, f"t{user}", "c", "d"), bought(user, f"t{user}", "e", days_ago=0.4))
            for user in ("u2", "u3")
        ),
    )
    shop = world(events, min_distinct_users=2)
    assert set(entries(view_then_buy(shop, NO_DECAY), shop)) == {"e<c", "e<d"}
    assert set(entries(co_view(shop, NO_DECAY), shop)) == {"c<d", "d<c"}


@pytest.mark.parametrize("name", ["co_view", "view_then_buy"])
def test_a_log_without_looks_has_no_such_edges(name: str, world: Callable[..., ItemWorld]) -> None:
    shop = world(bought("u1", "s1", "a", "b"))
    matrix = build_relation(name, shop, NO_DECAY)
    assert (matrix.shape, matrix.nnz) == ((2, 2), 0)
