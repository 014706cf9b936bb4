"""The relations of the item graph by name. To add one: write a builder beside its like, name it here.

A builder of an item relation returns the (I, I) raw weights, its own normalisation done: item i reads from its
neighbours j in row i. `finish` then keeps the strongest k a row and makes rows sum to 1 (the Σ_j 1/deg(i) of a graph
convolution), so a relation's share of an item does not depend on how popular the item or how large its category is.
A builder over nodes of another kind (nodes.py) returns both of its directions finished.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from components.core.errors import SettingsError
from components.core.sections import GraphSettings
from components.graph.behaviour import co_purchase, co_view, view_then_buy
from components.graph.kinds import always_with, price_band, same_brand, same_category, similar_text
from components.graph.nodes import attribute, knowledge, user_item
from components.graph.world import ItemWorld
from components.model.item_graph import NodeRelation, row_normalised
from components.model.linear_filter import strongest_per_row
from components.model.rules import NEVER_TOGETHER

RELATIONS: dict[str, Callable[[ItemWorld, GraphSettings], sp.csr_matrix]] = {
    "co_purchase": co_purchase,
    "co_view": co_view,
    "view_then_buy": view_then_buy,
    "same_category": same_category,
    "same_brand": same_brand,
    "price_band": price_band,
    "similar_text": similar_text,
    "always_with": always_with,
}

# Over nodes of another kind.
NODE_RELATIONS: dict[str, Callable[[ItemWorld, GraphSettings], NodeRelation]] = {
    "attribute": attribute,
    "knowledge": knowledge,
    "user_item": user_item,
}

# Relations from what people did, or what they were told to do; the others come from the catalogue.
BEHAVIOUR_RELATIONS = frozenset({"co_purchase", "co_view", "view_then_buy", "always_with"})


def build_relation(name: str, world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix | NodeRelation:
    """(I, I): rows cut to the relation's number of neighbours, each summing to 1 or empty; or both ways over nodes."""
    if name in NODE_RELATIONS:
        return NODE_RELATIONS[name](world, settings)
    if name not in RELATIONS:
        raise SettingsError(
            f"graph.relations names '{name}'; known: {', '.join(sorted({*RELATIONS, *NODE_RELATIONS}))}. "
            "Add one in components/graph/relations.py."
        )
    is_behaviour = name in BEHAVIOUR_RELATIONS
    neighbours = settings.neighbours_per_item if is_behaviour else settings.group_neighbours_per_item
    return finish(without_barred(RELATIONS[name](world, settings), world), neighbours=neighbours)


def finish(raw: sp.csr_matrix, *, neighbours: int) -> sp.csr_matrix:
    """Keep the strongest `neighbours` of each row and make rows sum to 1."""
    return row_normalised(strongest_per_row(raw, count=neighbours))


def without_barred(matrix: sp.csr_matrix, world: ItemWorld) -> sp.csr_matrix:
    """Without the entries of items that a merchandiser keeps apart, in both directions."""
    barred = [row for row in world.catalogue.rules.to_pylist() if row["rule"] == NEVER_TOGETHER]
    if not barred:
        return matrix
    index = {item_id: row for row, item_id in enumerate(world.item_ids)}
    ends = [(index.get(row["item_id"], -1), index.get(row["other_item_id"], -1)) for row in barred]
    one, other = np.array([pair for pair in ends if min(pair) >= 0], dtype=np.int64).reshape(-1, 2).T
    coo = matrix.tocoo()
    keys = np.concatenate([one * world.num_items + other, other * world.num_items + one])
    kept = ~np.isin(coo.row.astype(np.int64) * world.num_items + coo.col, keys)
    return sp.csr_matrix((coo.data[kept], (coo.row[kept], coo.col[kept])), shape=matrix.shape)
