"""Items that meet in attribute values, in entities of a knowledge graph, and in users: by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from small_log import bought, log

from components.core.sections import GraphSettings
from components.graph.nodes import attribute, knowledge, user_item
from components.graph.relations import NODE_RELATIONS, build_relation
from components.graph.side_tables import TRIPLES
from components.graph.world import ItemWorld

SETTINGS = GraphSettings(min_distinct_users=1, half_life_days=1e9)


def popular(**users: int) -> list[dict[str, Any]]:
    return log(*(bought(f"{item}-{n}", f"{item}-{n}", item) for item, count in users.items() for n in range(count)))


def named(matrix: sp.csr_matrix, rows: Any, cols: Any) -> dict[str, float]:
    """'row<column': weight."""
    coo = matrix.tocoo()
    return {f"{rows[i]}<{cols[j]}": float(w) for i, j, w in zip(coo.row, coo.col, coo.data, strict=True)}


def triples(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(TRIPLES.names, row, strict=True)) for row in rows], TRIPLES)


def test_items_meet_in_the_values_that_they_share(world: Callable[..., ItemWorld]) -> None:
    catalog = [
        {"item_id": "a", "category": "tea", "attributes": [("colour", "red"), ("code", "1")]},
        {"item_id": "b", "category": "tea", "attributes": [("colour", "red"), ("code", "2")]},
        {"item_id": "c", "category": "tea", "attributes": [("colour", "blue"), ("code", "3")]},
    ]
    shop = world(popular(a=1, b=3), catalog)
    found = attribute(shop, SETTINGS)
    assert (found.kind, list(found.names)) == ("attribute", ["category=tea", "colour=red"])  # the others join nobody
    a, b = np.log([2, 4])
    # Nobody bought c: it hears and has no say.
    assert named(found.gather, found.names, shop.item_ids) == pytest.approx(
        {
            "category=tea<a": a / (a + b),
            "category=tea<b": b / (a + b),
            "colour=red<a": a / (a + b),
            "colour=red<b": b / (a + b),
        }
    )
    tea, red = 1 / np.log([4, 3])  # what three share says less than what two share
    shares = {"category=tea": tea / (tea + red), "colour=red": red / (tea + red)}
    assert named(found.spread, shop.item_ids, found.names) == pytest.approx(
        {f"{item}<{name}": share for item in "ab" for name, share in shares.items()} | {"c<category=tea": 1}
    )


def test_a_value_hears_from_its_best_known_items_alone(world: Callable[..., ItemWorld]) -> None:
    catalog = [{"item_id": item, "category": "tea"} for item in "abc"]
    shop = world(popular(a=5, b=2, c=9), catalog)
    found = attribute(shop, GraphSettings(min_distinct_users=1, group_members=2))
    assert set(named(found.gather, found.names, shop.item_ids)) == {"category=tea<a", "category=tea<c"}
    floor = attribute(shop, GraphSettings(min_distinct_users=3))
    assert set(named(floor.gather, floor.names, shop.item_ids)) == {"category=tea<a", "category=tea<c"}


def test_items_meet_in_what_they_are_both_related_to(world: Callable[..., ItemWorld]) -> None:
    table = triples(
        ("a", "made by", "Acme"),
        ("b", "made by", "Acme"),
        ("c", "sold by", "Acme"),  # another relation to the same entity
        ("d", "sold by", "Acme"),
        ("e", "made by", "Alone"),
    )
    shop = world(popular(a=1, b=1, c=1, d=1, e=1), triples=table)
    found = knowledge(shop, SETTINGS)
    assert (found.kind, list(found.names)) == ("entity", ["made by → Acme", "sold by → Acme"])
    assert named(found.spread, shop.item_ids, found.names) == {
        "a<made by → Acme": 1,
        "b<made by → Acme": 1,
        "c<sold by → Acme": 1,
        "d<sold by → Acme": 1,
    }


def test_a_triple_of_two_items_joins_them(world: Callable[..., ItemWorld]) -> None:
    shop = world(popular(a=1, b=1, c=1), triples=triples(("a", "fits", "b")))
    found = knowledge(shop, SETTINGS)
    assert named(found.gather, found.names, shop.item_ids) == {"fits → b<a": 0.5, "fits → b<b": 0.5}


def test_an_entity_may_be_the_head(world: Callable[..., ItemWorld]) -> None:
    table = triples(("Acme", "makes", "a"), ("Acme", "makes", "b"))
    found = knowledge(world(popular(a=1, b=1, c=1), triples=table), SETTINGS)
    assert list(found.names) == ["Acme → makes"]
    assert found.spread.toarray().tolist() == [[1], [1], [0]]


def test_a_triple_of_two_entities_reaches_the_items_of_both_half_as_strongly(world: Callable[..., ItemWorld]) -> None:
    table = triples(
        ("a", "made by", "Acme"),
        ("b", "made by", "Best"),
        ("Acme", "owned by", "Holding"),
        ("Best", "owned by", "Holding"),
        ("c", "made by", "Holding"),
        ("Holding", "seated in", "Rome"),  # two hops from a and b: too far
    )
    shop = world(popular(a=1, b=1, c=1), triples=table)
    found = knowledge(shop, SETTINGS)
    assert list(found.names) == ["owned by → Holding"]
    assert set(named(found.gather, found.names, shop.item_ids)) == {f"owned by → Holding<{item}" for item in "abc"}
    both = triples(*(tuple(row.values()) for row in table.to_pylist()), ("a", "owned by", "Holding"))
    shop = world(popular(a=1, b=1, c=1), triples=both)
    found = knowledge(shop, SETTINGS)
    gathered = named(found.gather, found.names, shop.item_ids)
    assert gathered == pytest.approx(
        {
            "owned by → Holding<a": 0.5,
            "owned by → Holding<b": 0.25,
            "owned by → Holding<c": 0.25,
            "seated in → Rome<a": 0.5,  # now one hop beyond the entity that a belongs to
            "seated in → Rome<c": 0.5,
        }
    )


def test_users_hear_from_their_items_and_items_from_their_users(world: Callable[..., ItemWorld]) -> None:
    events = log(bought("u1", "s1", "a", "b"), bought("u2", "s2", "b"), bought(None, "s3", "c"))
    shop = world(events)
    found = user_item(shop, SETTINGS)
    assert (found.kind, list(found.names)) == ("user", ["u1", "u2"])
    assert named(found.gather, found.names, shop.item_ids) == {"u1<a": 0.5, "u1<b": 0.5, "u2<b": 1}
    much, little = 0.5**0.5, 1.0  # u1 has two items, so each says less
    assert named(found.spread, shop.item_ids, found.names) == pytest.approx(
        {"a<u1": 1, "b<u1": much / (much + little), "b<u2": little / (much + little)}
    )


def test_an_item_hears_from_its_strongest_users_and_from_none_below_the_floor(world: Callable[..., ItemWorld]) -> None:
    events = log(bought("u1", "s1", "a", "b"), bought("u2", "s2", "a", "x", "y"))
    shop = world(events)
    found = user_item(shop, GraphSettings(min_distinct_users=2, neighbours_per_item=1))
    assert named(found.spread, shop.item_ids, found.names) == {"a<u1": 1}


@pytest.mark.parametrize("name", sorted(NODE_RELATIONS))
def test_a_bare_log_has_no_such_nodes_but_its_users(name: str, world: Callable[..., ItemWorld]) -> None:
    shop = world(bought(None, "s1", "a", "b"))
    found = build_relation(name, shop, SETTINGS)
    assert not isinstance(found, sp.csr_matrix)
    assert (list(found.names), found.gather.shape, found.spread.shape) == ([], (0, 2), (2, 0))
