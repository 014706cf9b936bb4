"""Edge types of the item graph, one small builder each. To add one: write a function, name it in RELATIONS.

A builder returns the (I, I) raw weights of its relation, its own cut and normalisation done: item i reads from its
neighbours j in row i. `finish` then keeps the strongest k a row and makes rows sum to 1 (the Σ_j 1/deg(i) of a graph
convolution), so a relation's share of an item does not depend on how popular the item or how large its category is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from components.core.errors import SettingsError
from components.core.sections import GraphSettings
from components.graph.world import Floats, Ints, ItemWorld
from components.model.linear_filter import strongest_per_row

Builder = Callable[[ItemWorld, GraphSettings], sp.csr_matrix]


def co_purchase(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """Bought in one basket. Time-decayed counts, cosine-normalised against popularity, floored at distinct users."""
    low, high, met = world.pairs.counts(
        cutoff=world.cutoff_days,
        half_life_days=settings.half_life_days,
        min_distinct_users=settings.min_distinct_users,
    )
    # cosine: c_ij / sqrt(d_i d_j), d the item's own decayed count
    decay = np.where(world.is_target_E, world.decay(settings.half_life_days), 0)
    degree = np.bincount(world.item_E, weights=decay, minlength=world.num_items)
    weight = met / np.sqrt(np.maximum(degree[low] * degree[high], 1e-12))
    entries = (np.tile(weight, 2), (np.concatenate([low, high]), np.concatenate([high, low])))
    return sp.csr_matrix(entries, shape=(world.num_items, world.num_items), dtype=np.float32)


def same_category(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items of the same category."""
    return _same_group(world, _codes(world.attributes.get("category", ())), settings)


def same_brand(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items of the same brand within the same category, where there is one.

    A house brand spans a whole supermarket: without the category its edges would join milk to motor oil.
    """
    brand = _codes(world.attributes.get("brand", ()))
    return _same_group(world, _both(brand, _codes(world.attributes.get("category", ())), both_known=False), settings)


def price_band(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items of the same category and price band (a quantile within the category)."""
    category = _codes(world.attributes.get("category", ()))
    if not len(category):
        category = np.zeros(world.num_items, dtype=np.int64)
    return _same_group(world, _both(category, price_bands(world.price_I, category, settings.price_bands)), settings)


RELATIONS: dict[str, Builder] = {
    "co_purchase": co_purchase,
    "same_category": same_category,
    "same_brand": same_brand,
    "price_band": price_band,
}

# Relations from what people did; the others come from the catalogue.
BEHAVIOUR_RELATIONS = frozenset({"co_purchase"})


def build_relation(name: str, world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """(I, I): rows cut to the relation's number of neighbours, each summing to 1 or empty."""
    if name not in RELATIONS:
        raise SettingsError(
            f"graph.relations names '{name}'; known: {', '.join(sorted(RELATIONS))}. "
            "Add one in components/graph/relations.py."
        )
    is_behaviour = name in BEHAVIOUR_RELATIONS
    neighbours = settings.neighbours_per_item if is_behaviour else settings.group_neighbours_per_item
    return finish(RELATIONS[name](world, settings), neighbours=neighbours)


def finish(raw: sp.csr_matrix, *, neighbours: int) -> sp.csr_matrix:
    """Keep the strongest `neighbours` of each row and make rows sum to 1."""
    matrix = strongest_per_row(raw, count=neighbours)
    total = np.asarray(matrix.sum(axis=1)).ravel()
    matrix.data /= np.repeat(total, np.diff(matrix.indptr)).astype(np.float32)
    return matrix


def price_bands(price_I: Floats, category_I: Ints, num_bands: int) -> Ints:
    """(I,) quantile band of an item's price within its category, 0 .. num_bands - 1; -1 where price is unknown."""
    bands = np.full(len(price_I), -1, dtype=np.int64)
    known = np.flatnonzero(~np.isnan(price_I))
    order = known[np.lexsort((price_I[known], category_I[known]))]
    group = category_I[order]
    first = np.searchsorted(group, group)
    size = np.searchsorted(group, group, side="right") - first
    bands[order] = (np.arange(len(order)) - first) * num_bands // np.maximum(size, 1)
    return bands


def _same_group(world: ItemWorld, group_I: Ints, settings: GraphSettings) -> sp.csr_matrix:
    """Each item reads from its group's `group_neighbours_per_item` best-known items, by log popularity.

    Cutting to a fixed number and normalising rows takes the group's size out: an item of a category of 2,000 hears as
    much from its category as one of a category of 20.
    """
    if not len(group_I):
        return _empty(world)
    known = np.log1p(world.users_I).astype(np.float32)
    members = np.flatnonzero((group_I >= 0) & (known > 0))
    order = members[np.lexsort((members, -known[members], group_I[members]))]
    group = group_I[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    kept = rank <= settings.group_neighbours_per_item  # one more than needed: an item is no neighbour of its own
    teachers = sp.csr_matrix(
        (known[order[kept]], (group[kept], order[kept])), shape=(int(group_I.max(initial=0)) + 1, world.num_items)
    )
    pupils = np.flatnonzero(group_I >= 0)
    membership = sp.csr_matrix(
        (np.ones(len(pupils), dtype=np.float32), (pupils, group_I[pupils])),
        shape=(world.num_items, teachers.shape[0]),
    )
    return sp.csr_matrix(membership @ teachers)


def _codes(values: Sequence[str | None]) -> Ints:
    """Codes of the sorted distinct values, -1 for None; empty where no value is known."""
    known = sorted({value for value in values if value is not None})
    if not known:
        return np.zeros(0, dtype=np.int64)
    code_of = {value: code for code, value in enumerate(known)}
    return np.array([-1 if value is None else code_of[value] for value in values], dtype=np.int64)


def _both(first: Ints, second: Ints, *, both_known: bool = True) -> Ints:
    """Codes of pairs, -1 where the first (or, with `both_known`, either) is unknown."""
    if not len(first) or not len(second):
        return first
    joint = first * (int(second.max()) + 2) + second + 1
    unknown = (first < 0) | (second < 0) if both_known else first < 0
    _, codes = np.unique(joint, return_inverse=True)
    return np.where(unknown, -1, codes)


def _empty(world: ItemWorld) -> sp.csr_matrix:
    return sp.csr_matrix((world.num_items, world.num_items), dtype=np.float32)
