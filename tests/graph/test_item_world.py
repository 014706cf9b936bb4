"""What is known of items and users at a cutoff."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from small_log import CUTOFF, bought, log, worlds

from components.graph.world import ItemWorld
from components.model.histories import Histories


def test_items_are_those_of_log_and_catalogue_in_sorted_order(world: Callable[..., ItemWorld]) -> None:
    events = log(bought("u1", "s1", "b"), bought("u1", "s2", "z", days_ago=-3))
    shop = world(events, [{"item_id": "c", "category": "tea"}, {"item_id": "a"}])
    assert list(shop.item_ids) == ["a", "b", "c"]  # z is sold after the cutoff only
    assert shop.catalogue.attributes["category"].to_pylist() == [None, None, "tea"]


def test_further_attributes_of_the_catalogue_are_there(world: Callable[..., ItemWorld]) -> None:
    catalog = [{"item_id": "a", "attributes": [("size", "large"), ("colour", "red")]}, {"item_id": "b"}]
    shop = world(bought("u1", "s1", "c"), catalog)
    assert {name: values.to_pylist() for name, values in shop.catalogue.attributes.items()} == {
        "category": [None] * 3,
        "brand": [None] * 3,
        "size": ["large", None, None],
        "colour": ["red", None, None],
    }


def test_users_of_an_item_are_distinct_people_who_bought_it(world: Callable[..., ItemWorld]) -> None:
    events = log(
        bought("u1", "s1", "a", "a"),
        bought("u1", "s2", "a", days_ago=40),
        bought("u2", "s3", "a", days_ago=40),
        bought("u3", "s4", "a", event_type="view"),
        bought(None, "s5", "a"),
        bought(None, "s5", "b"),
    )
    shop = world(events)
    assert shop.users_I.tolist() == [3, 1]
    assert shop.recent_users(within_days=28).tolist() == [2, 1]


def test_events_without_weight_count_for_nothing(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought("u1", "s1", "a"), bought("u1", "s1", "b", event_type="impression")))
    assert shop.item_E.tolist() == [0]
    assert shop.num_users == 1


def test_strengths_are_those_of_the_histories_that_serve(world: Callable[..., ItemWorld]) -> None:
    events = log(
        bought("u1", "s1", "a", days_ago=3),
        bought("u1", "s2", "a", days_ago=30),
        bought("u1", "s2", "b", days_ago=30, event_type="view"),
        bought("u1", "s3", "b", days_ago=10, event_type="view"),
        bought("u2", "s4", "b", days_ago=7),
        bought(None, "s5", "a"),
    )
    histories = Histories.from_lists([[0, 1], [1]], [[2.0, 0.4], [1.0]], [[3.0, 10.0], [7.0]])
    expected = np.zeros((2, 2))
    expected[histories.user_of_entry, histories.items] = histories.strengths(half_life_days=14)
    np.testing.assert_allclose(world(events).user_strengths(half_life_days=14).toarray(), expected, rtol=1e-5)


def test_an_event_at_the_cutoff_is_after_it(tmp_path: Path) -> None:
    (shop,) = worlds(tmp_path, log(bought("u1", "s1", "a", days_ago=0), bought("u1", "s1", "b", days_ago=1e-9)))
    assert list(shop.item_ids) == ["b"]
    earlier, later = worlds(
        tmp_path,
        log(bought("u1", "s1", "a", days_ago=1), bought("u1", "s1", "b", days_ago=2, price=2.0)),
        cutoffs=(CUTOFF - timedelta(days=1), CUTOFF),
    )
    assert (earlier.item_E.tolist(), later.item_E.tolist()) == ([1], [1, 0])
    assert later.age_days_E.tolist() == pytest.approx([2, 1])


def test_prices_are_those_paid_before_the_cutoff(tmp_path: Path) -> None:
    events = log(
        bought("u1", "s1", "a", days_ago=20, price=1.0),
        bought("u1", "s2", "a", days_ago=5, price=3.0),
        bought("u1", "s3", "b", days_ago=5, price=9.0),
    )
    earlier, later = worlds(tmp_path, events, cutoffs=(CUTOFF - timedelta(days=10), CUTOFF))
    assert earlier.price_I.tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert later.price_I.tolist() == [2, 9]


def test_decay_halves_with_each_half_life(world: Callable[..., ItemWorld]) -> None:
    shop = world(log(bought("u1", "s1", "a", days_ago=28), bought("u1", "s2", "a", days_ago=14)))
    assert torch.from_numpy(shop.decay(14)).tolist() == pytest.approx([0.25, 0.5])


def test_a_users_strongest_items_are_kept_and_equals_go_by_item(world: Callable[..., ItemWorld]) -> None:
    events = log(
        bought("u1", "s1", "a", "b", "c", days_ago=20),
        bought("u1", "s2", "d", days_ago=2),
        bought("u2", "s3", "a", days_ago=2),
    )
    kept = world(events).user_strengths(half_life_days=10, strongest=2).toarray() > 0
    assert kept.sum(axis=1).tolist() == [2, 1]
    assert kept[0, 3]
    assert kept[1, 0]
