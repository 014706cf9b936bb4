"""Relations from the catalogue: an item hears from the best known of its kind, however many those are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_log import bought, entries, log, row_sums, viewed

from components.core.errors import SettingsError
from components.core.sections import GraphSettings
from components.graph.kinds import price_bands
from components.graph.relations import BEHAVIOUR_RELATIONS, RELATIONS, build_relation
from components.graph.world import ItemWorld
from components.model.rules import RULES

SETTINGS = GraphSettings(group_neighbours_per_item=2)


def items(**category: str | None) -> list[dict[str, Any]]:
    return [{"item_id": item, "category": value} for item, value in category.items()]


def popular(**users: int) -> list[dict[str, Any]]:
    """As many buyers of each item, each with a session of their own."""
    return log(*(bought(f"{item}-{n}", f"{item}-{n}", item) for item, count in users.items() for n in range(count)))


def test_an_item_hears_from_the_best_known_of_its_category(world: Callable[..., ItemWorld]) -> None:
    catalog = items(a="tea", b="tea", c="tea", d="tea", e="milk", f=None, g=None)
    shop = world(popular(a=3, b=7, c=1, e=2, f=5, g=5), catalog)
    found = entries(build_relation("same_category", shop, SETTINGS), shop)
    a, b, c = np.log1p([3, 7, 1])
    assert found == pytest.approx(
        {
            "a<b": b / (b + c),
            "a<c": c / (b + c),
            "b<a": a / (a + c),
            "b<c": c / (a + c),
            "c<b": b / (a + b),
            "c<a": a / (a + b),
            "d<b": b / (a + b),  # nobody bought d: it listens and has no say
            "d<a": a / (a + b),
        },
        rel=1e-5,
    )


def test_a_large_category_does_not_speak_louder(world: Callable[..., ItemWorld]) -> None:
    large = {f"l{n:03d}": "large" for n in range(60)}
    small = {f"s{n}": "small" for n in range(3)}
    shop = world(popular(**dict.fromkeys(large, 1), **dict.fromkeys(small, 1)), items(**large, **small))
    matrix = build_relation("same_category", shop, GraphSettings(group_neighbours_per_item=8))
    assert row_sums(matrix) == pytest.approx([1] * 63)
    assert np.diff(matrix.indptr).tolist() == [8] * 60 + [2] * 3


def test_a_house_brand_joins_its_items_within_a_category_alone(world: Callable[..., ItemWorld]) -> None:
    catalog = [
        {"item_id": "milk", "brand": "house", "category": "dairy"},
        {"item_id": "butter", "brand": "house", "category": "dairy"},
        {"item_id": "oil", "brand": "house", "category": "motor"},
        {"item_id": "fluid", "brand": "other", "category": "motor"},
        {"item_id": "gift", "brand": "house", "category": None},
        {"item_id": "card", "brand": "house", "category": None},
        {"item_id": "bag", "brand": None, "category": "dairy"},
    ]
    shop = world(popular(milk=1, butter=1, oil=1, fluid=1, gift=1, card=1, bag=1), catalog)
    found = set(entries(build_relation("same_brand", shop, SETTINGS), shop))
    assert found == {"milk<butter", "butter<milk", "gift<card", "card<gift"}


def test_price_bands_are_quantiles_within_a_category() -> None:
    price_I = np.array([1, 2, 3, 4, 100, 200, 5, np.nan], dtype=np.float32)
    category_I = np.array([0, 0, 0, 0, 1, 1, -1, 0])
    assert price_bands(price_I, category_I, 2).tolist() == [0, 0, 1, 1, 0, 1, 0, -1]
    assert price_bands(price_I, category_I, 4).tolist() == [0, 1, 2, 3, 0, 2, 0, -1]
    assert price_bands(np.full(2, np.nan, dtype=np.float32), np.array([0, 0]), 3).tolist() == [-1, -1]


def test_items_of_one_price_band_hear_from_each_other(world: Callable[..., ItemWorld]) -> None:
    prices = {"a": 1.0, "b": 1.5, "c": 9.0, "d": 10.0, "e": None}
    catalog = [{"item_id": item, "category": "tea", "price": price} for item, price in prices.items()]
    shop = world(popular(a=1, b=1, c=1, d=1, e=1), catalog)
    found = entries(build_relation("price_band", shop, GraphSettings(price_bands=2)), shop)
    assert found == {"a<b": 1, "b<a": 1, "c<d": 1, "d<c": 1}


def test_what_was_paid_stands_in_for_a_price_that_is_not_listed(world: Callable[..., ItemWorld]) -> None:
    paid = log(
        *(bought("u1", f"s{n}", "a", price=price) for n, price in enumerate([1.0, 4.0, 2.0])),
        bought("u1", "t1", "b", price=6.0),
        bought("u1", "t2", "b", price=8.0),
        bought("u1", "t3", "c", price=5.0),
        bought("u1", "t4", "d"),
    )
    shop = world(paid, [{"item_id": "c", "price": 3.0}, {"item_id": "b"}])
    assert shop.price_I.tolist() == pytest.approx([2, 7, 3, np.nan], nan_ok=True)


@pytest.mark.parametrize("name", sorted(set(RELATIONS) - BEHAVIOUR_RELATIONS))
def test_a_shop_without_a_catalogue_has_no_such_edges(name: str, world: Callable[..., ItemWorld]) -> None:
    shop = world(popular(a=3, b=2))
    matrix = build_relation(name, shop, SETTINGS)
    assert (matrix.shape, matrix.nnz) == ((2, 2), 0)


@pytest.mark.parametrize("name", sorted(RELATIONS))
def test_no_item_is_its_own_neighbour_and_rows_sum_to_one_or_nothing(
    name: str, world: Callable[..., ItemWorld]
) -> None:
    generator = np.random.default_rng(0)
    names = [f"i{n:02d}" for n in range(30)]
    baskets = [bought(f"u{n}", f"s{n}", *generator.choice(names, 4), days_ago=0.3) for n in range(80)]
    looks = [viewed(f"u{n}", f"s{n}", *generator.choice(names, 4)) for n in range(80)]
    catalog = [
        {
            "item_id": item,
            "title": f"{['green', 'black', 'red'][n % 3]} tea {n // 3}",
            "category": "ab"[n % 2],
            "brand": "xyz"[n % 3],
            "price": float(n),
        }
        for n, item in enumerate(names)
    ]
    wanted = [{"item_id": "i00", "other_item_id": f"i{n:02d}", "rule": "always_with"} for n in range(30)]
    shop = world(log(*baskets, *looks), catalog, rules=pa.Table.from_pylist(wanted, RULES))
    settings = GraphSettings(min_distinct_users=1, neighbours_per_item=5, group_neighbours_per_item=3, price_bands=3)
    matrix = build_relation(name, shop, settings)
    assert matrix.diagonal().tolist() == [0] * 30
    assert [total for total in row_sums(matrix) if total != pytest.approx(1) and total != 0] == []
    assert np.diff(matrix.indptr).max() == (5 if name in BEHAVIOUR_RELATIONS else 3)
    assert matrix.nnz > 30


def test_an_unknown_relation_names_the_known_ones_and_the_file(world: Callable[..., ItemWorld]) -> None:
    with pytest.raises(
        SettingsError, match=r"graph\.relations names 'co_buy'; known: always_with, attribute, co_purchase, .*\.py"
    ):
        build_relation("co_buy", world(popular(a=1)), SETTINGS)
