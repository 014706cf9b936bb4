"""Relations from the catalogue: an item hears from the best known of its kind."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from components.core.sections import GraphSettings
from components.graph.catalogue import Floats, Ints
from components.graph.world import ItemWorld
from components.model.linear_filter import strongest_entries
from components.model.rules import ALWAYS_WITH


def same_category(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items of the same category."""
    return _same_group(world, world.catalogue.codes("category"), settings)


def same_brand(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items of the same brand within the same category, where there is one.

    A house brand spans a whole supermarket: without the category its edges would join milk to motor oil.
    """
    brand, category = world.catalogue.codes("brand"), world.catalogue.codes("category")
    return _same_group(world, _both(brand, category, both_known=False), settings)


def price_band(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items of the same category and price band (a quantile within the category)."""
    category = world.catalogue.codes("category")
    if not len(category):
        category = np.zeros(world.num_items, dtype=np.int64)
    return _same_group(world, _both(category, price_bands(world.price_I, category, settings.price_bands)), settings)


def similar_text(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """The best-known items whose title and category read alike, weighed by cosine and log popularity."""
    neighbours = settings.group_neighbours_per_item
    texts = world.catalogue.similar_texts(neighbours=neighbours)
    own = _teachers(world, texts.text_I, texts.similarity_TT.shape[0], settings)
    of_text = strongest_entries(sp.csr_matrix(texts.similarity_TT @ own), count=neighbours + 1)
    return _taught(texts.text_I, _strongest_first(of_text), count=neighbours)


def always_with(world: ItemWorld, settings: GraphSettings) -> sp.csr_matrix:
    """Items that a merchandiser wants shown together; both hear from each other, however rarely they are bought."""
    index = {item_id: row for row, item_id in enumerate(world.item_ids)} if world.catalogue.rules.num_rows else {}
    edges = set()
    for rule in world.catalogue.rules.to_pylist():
        one, other = index.get(rule["item_id"]), index.get(rule["other_item_id"])
        if rule["rule"] == ALWAYS_WITH and one is not None and other is not None:
            edges |= {(one, other), (other, one)}
    rows, cols = zip(*sorted(edges), strict=True) if edges else ((), ())
    shape = (world.num_items, world.num_items)
    return sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, cols)), shape=shape)


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
        return sp.csr_matrix((world.num_items, world.num_items), dtype=np.float32)
    teachers_GI = _teachers(world, group_I, int(group_I.max(initial=0)) + 1, settings)
    return _taught(group_I, teachers_GI, count=settings.group_neighbours_per_item)


def _teachers(world: ItemWorld, group_I: Ints, num_groups: int, settings: GraphSettings) -> sp.csr_matrix:
    """(G, I) log popularity of each group's best-known items, the best first in its row.

    One more than an item is to hear from: none is a neighbour of its own.
    """
    known_I = np.log1p(world.users_I).astype(np.float32)
    members = np.flatnonzero((group_I >= 0) & (known_I > 0))
    order = members[np.lexsort((members, -known_I[members], group_I[members]))]
    group = group_I[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    kept = order[rank <= settings.group_neighbours_per_item]
    indptr = np.searchsorted(group_I[kept], np.arange(num_groups + 1))
    return sp.csr_matrix((known_I[kept], kept, indptr), shape=(num_groups, world.num_items))


def _strongest_first(rows: sp.csr_matrix) -> sp.csr_matrix:
    order = np.lexsort((-rows.data, np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))))
    return sp.csr_matrix((rows.data[order], rows.indices[order], rows.indptr), shape=rows.shape)


def _taught(group_I: Ints, teachers_GI: sp.csr_matrix, *, count: int) -> sp.csr_matrix:
    """(I, I): each item's row is the first `count` of its group's that are not itself."""
    pupils = np.flatnonzero(group_I >= 0)
    lengths = np.diff(teachers_GI.indptr)[group_I[pupils]]
    ends = np.cumsum(lengths)
    rank = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    place = rank + np.repeat(teachers_GI.indptr[group_I[pupils]], lengths)
    pupil, teacher = np.repeat(pupils, lengths), teachers_GI.indices[place]
    is_own = pupil == teacher
    hears_own_I = np.zeros(len(group_I), dtype=bool)
    hears_own_I[pupil[is_own]] = True
    kept = ~is_own & ((rank < count) | hears_own_I[pupil])
    entries = (teachers_GI.data[place[kept]], (pupil[kept], teacher[kept]))
    return sp.csr_matrix(entries, shape=(len(group_I), len(group_I)))


def _both(first: Ints, second: Ints, *, both_known: bool = True) -> Ints:
    """Codes of pairs, -1 where the first (or, with `both_known`, either) is unknown."""
    if not len(first) or not len(second):
        return first
    joint = first * (int(second.max()) + 2) + second + 1
    unknown = (first < 0) | (second < 0) if both_known else first < 0
    _, codes = np.unique(joint, return_inverse=True)
    return np.where(unknown, -1, codes)
