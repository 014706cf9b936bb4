"""Relations over nodes of another kind: items meet in attribute values, entities of a knowledge graph, and users.

Each builder returns both directions, cut and normalised: what a node hears from its items, and what an item hears from
its nodes. A node that joins no two items is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from components.core.sections import GraphSettings
from components.graph.world import ItemWorld
from components.model.item_graph import NodeRelation, row_normalised
from components.model.linear_filter import strongest_entries

ATTRIBUTE, ENTITY, USER = "attribute", "entity", "user"
# What stands two triples away says half as much as what stands one away.
SECOND_HOP = 0.5


def attribute(world: ItemWorld, settings: GraphSettings) -> NodeRelation:
    """A node each value of each attribute of the catalogue."""
    catalogue = world.catalogue
    items, nodes, names = [], [], list[str]()
    for name in sorted(catalogue.attributes):
        codes_I = catalogue.codes(name)
        of_value = np.bincount(codes_I[codes_I >= 0]) if len(codes_I) else np.zeros(0, dtype=np.int64)
        shared = np.flatnonzero(of_value > 1)  # a package number names one item
        place = np.full(len(of_value), -1)
        place[shared] = np.arange(len(shared)) + len(names)
        holders = np.flatnonzero(codes_I >= 0)
        holders = holders[place[codes_I[holders]] >= 0]
        items.append(holders)
        nodes.append(place[codes_I[holders]])
        values = sorted(catalogue.attributes[name].drop_null().unique().to_pylist())  # in the order of their codes
        names += [f"{name}={values[code]}" for code in shared.tolist()]
    item, node = np.concatenate([np.zeros(0, np.int64), *items]), np.concatenate([np.zeros(0, np.int64), *nodes])
    ones = np.ones(len(item), dtype=np.float32)
    membership = sp.csr_matrix((ones, (item, node)), shape=(world.num_items, len(names)))
    return _members(ATTRIBUTE, names, membership, world, settings)


def knowledge(world: ItemWorld, settings: GraphSettings) -> NodeRelation:
    """A node each (relation, entity): items meet there that stand in the same relation to the same thing.

    item -r-> x joins the item to node (r, x); where x is an item it is a member itself. entity -r-> item joins the item
    to node (entity, r). entity a -r-> entity b makes a node (r, b) where the items of a and those of b meet, half as
    strongly: one more hop, and no further.
    """
    triples = world.catalogue.triples
    item_ids = pa.array(world.item_ids, pa.string())
    head, relation, tail = (triples[name].combine_chunks() for name in ("head", "relation", "tail"))
    head_item, tail_item = (
        np.asarray(pc.fill_null(pc.index_in(end, value_set=item_ids), -1), dtype=np.int64) for end in (head, tail)
    )
    # A name each triple: the node where it makes its items meet.
    from_entity = (head_item < 0) & (tail_item >= 0)
    towards = pc.binary_join_element_wise(relation, tail, " → ")
    names = pc.if_else(pa.array(from_entity), pc.binary_join_element_wise(head, relation, " → "), towards)
    known = sorted(names.unique().to_pylist())
    node = _index(names, known)

    from_item, both = head_item >= 0, (head_item >= 0) & (tail_item >= 0)
    member = np.concatenate([head_item[from_item], tail_item[both], tail_item[from_entity]])
    of_node = np.concatenate([node[from_item], node[both], node[from_entity]])
    direct = _binary(member, of_node, (world.num_items, len(known)))

    between = (head_item < 0) & (tail_item < 0)
    ends = [(head, head_item), (tail, tail_item)]
    entities = sorted(
        {value for end, item_of_end in ends for value in end.filter(pa.array(item_of_end < 0)).to_pylist()}
    )
    head_entity, tail_entity = _index(head, entities), _index(tail, entities)
    reached = from_item & ~both
    attached = _binary(
        np.concatenate([head_item[reached], tail_item[from_entity]]),
        np.concatenate([tail_entity[reached], head_entity[from_entity]]),
        (world.num_items, len(entities)),
    )
    meeting = _binary(
        np.concatenate([head_entity[between], tail_entity[between]]),
        np.tile(node[between], 2),
        (len(entities), len(known)),
    )
    second = sp.csr_matrix(attached @ meeting)
    second.data[:] = SECOND_HOP
    return _members(ENTITY, known, sp.csr_matrix(direct.maximum(second)), world, settings)


def user_item(world: ItemWorld, settings: GraphSettings) -> NodeRelation:
    """A node each user: it hears from the strongest of the user's items, an item from the strongest of its users.

    A user with much counts less for each of it. Users' ids stay in the graph artifact: no bundle has them.
    """
    strengths = world.user_strengths(half_life_days=settings.half_life_days, strongest=settings.filter_history_items)
    present = np.flatnonzero(np.diff(strengths.indptr) > 0)
    strengths = strengths[present]
    degree_U = np.asarray(strengths.sum(axis=1)).ravel()
    to_item = sp.csr_matrix(sp.diags(1 / np.sqrt(np.maximum(degree_U, 1e-12))) @ strengths).T.tocsr()
    to_item = sp.csr_matrix(sp.diags((world.users_I >= settings.min_distinct_users).astype(np.float32)) @ to_item)
    return NodeRelation(
        kind=USER,
        names=[world.user_ids[user] for user in present.tolist()],
        gather=row_normalised(strengths),
        spread=row_normalised(strongest_entries(to_item, count=settings.neighbours_per_item)),
    )


def _members(
    kind: str, names: Sequence[str], membership_IN: sp.csr_matrix, world: ItemWorld, settings: GraphSettings
) -> NodeRelation:
    """Nodes hear from their best-known members; an item hears most from the nodes that few share."""
    known_I = np.where(world.users_I >= settings.min_distinct_users, np.log1p(world.users_I), 0).astype(np.float32)
    size_N = np.bincount(membership_IN.indices, minlength=len(names))
    gather = strongest_entries(sp.csr_matrix(membership_IN.T @ sp.diags(known_I)), count=settings.group_members)
    kept = np.flatnonzero((size_N > 1) & (np.diff(gather.indptr) > 0))
    rarity = (1 / np.log1p(size_N[kept])).astype(np.float32)
    spread = strongest_entries(
        sp.csr_matrix(membership_IN[:, kept] @ sp.diags(rarity)), count=settings.neighbours_per_item
    )
    return NodeRelation(
        kind=kind,
        names=[names[node] for node in kept.tolist()],
        gather=row_normalised(gather[kept]),
        spread=row_normalised(spread),
    )


def _index(column: pa.StringArray, values: Sequence[str]) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(values, pa.string()))
    return np.asarray(pc.fill_null(found, -1), dtype=np.int64)


def _binary(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    matrix = sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, cols)), shape=shape)
    matrix.data[:] = 1  # what is said twice is said
    return matrix
