"""What a day's events are looked at through: the bundle's items, graph and users as they were when it was trained.

I items of the bundle, C categories, U users, K numbers. Nothing of it leaves the step but hashes and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.measures.drift import Floats, quantile_edges

Ints = npt.NDArray[np.int64]

POPULARITY_BINS = 10
# Categories that are told apart; the others count together.
NAMED_CATEGORIES = 40
# Users whose tastes and histories are kept in mind: enough for a mean.
REMEMBERED_USERS = 20_000


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Row n is item n of the bundle."""

    item_ids: pa.StringArray
    category_I: Ints
    """Number of the category from the most frequent on; `NAMED_CATEGORIES` for every further one, one more for none."""
    popularity_I: Floats
    """Share of the items that had fewer users, from 0 to 1."""
    price_I: Floats
    """nan where unknown."""
    edge_keys: Ints
    """Sorted source · I + target of the graph's relations from behaviour."""
    user_ids: pa.StringArray
    taste_keys: Ints
    """Sorted user · (C + 2) + category, one for each share in `taste_shares`."""
    taste_shares: Floats
    seen_keys: Ints
    """Sorted user · I + item of what users had taken."""
    depth_U: Floats
    """Distinct items in each user's history."""

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_categories(self) -> int:
        return NAMED_CATEGORIES + 2

    def share_of_taste(self, users: Ints, categories: Ints) -> Floats:
        """(N,) what share of a user's taste each category is; 0 where it is none of it."""
        place, found = _look_up(self.taste_keys, users * self.num_categories + categories)
        return np.where(found, self.taste_shares[place] if len(self.taste_shares) else 0.0, 0.0)

    def has_seen(self, users: Ints, items: Ints) -> npt.NDArray[np.bool_]:
        """(N,) whether the user had taken the item."""
        return _look_up(self.seen_keys, users * self.num_items + items)[1]

    def has_edge(self, sources: Ints, targets: Ints) -> npt.NDArray[np.bool_]:
        """(N,) whether one of the two hears from the other in the graph."""
        forth = _look_up(self.edge_keys, sources * self.num_items + targets)[1]
        back: npt.NDArray[np.bool_] = _look_up(self.edge_keys, targets * self.num_items + sources)[1]
        return forth | back


def make_lens(
    *,
    item_ids: Sequence[str],
    categories: Sequence[str | None],
    users_of_item: npt.ArrayLike,
    prices: npt.ArrayLike,
    edges: tuple[Ints, Ints],
    user_ids: Sequence[str],
    tastes: tuple[Ints, Sequence[str | None], Floats],
    seen: tuple[Ints, Ints],
) -> Lens:
    """Put a lens together.

    Args:
        users_of_item: (I,) distinct users; orders the popularity.
        edges: (E,) sources and targets, positions of items.
        tastes: (K,) positions in `user_ids`, names of categories, their shares of the user's taste.
        seen: (K,) positions in `user_ids` and of items.
    """
    counted = np.asarray(users_of_item, np.float64)
    names, code_I = _category_codes(categories, counted)
    of_name = {name: min(code, NAMED_CATEGORIES) for code, name in enumerate(names)}
    taste_user, taste_names, shares = tastes
    code = np.array([of_name.get(name or "", NAMED_CATEGORIES + 1) for name in taste_names], dtype=np.int64)
    taste_keys, taste_shares = _summed(taste_user * (NAMED_CATEGORIES + 2) + code, shares)
    seen_user, seen_item = seen
    return Lens(
        item_ids=pa.array(item_ids, pa.string()),
        category_I=code_I,
        popularity_I=np.searchsorted(np.sort(counted), counted) / max(1, len(counted)),
        price_I=np.asarray(prices, np.float64),
        edge_keys=np.unique(edges[0].astype(np.int64) * len(item_ids) + edges[1]),
        user_ids=pa.array(user_ids, pa.string()),
        taste_keys=taste_keys,
        taste_shares=taste_shares,
        seen_keys=np.unique(seen_user.astype(np.int64) * len(item_ids) + seen_item),
        depth_U=np.bincount(seen_user, minlength=len(user_ids)).astype(np.float64),
    )


def depth_edges(lens: Lens) -> Floats:
    """Edges of the bins in which users are told apart by how much is known of them."""
    return quantile_edges(lens.depth_U, bins=5)


def positions(column: pa.ChunkedArray | pa.Array, values: pa.StringArray) -> Ints:
    """(N,) where each text stands in `values`; -1 for one that does not, and for a null."""
    found: Ints = pc.fill_null(pc.index_in(column, value_set=values), -1).to_numpy().astype(np.int64)
    return found


def _category_codes(categories: Sequence[str | None], weights: Floats) -> tuple[list[str], Ints]:
    """Names from the most used to the least, and each item's number as the lens keeps it."""
    filled = np.array([name or "" for name in categories], dtype=object)
    names, code = np.unique(filled.astype(str), return_inverse=True)
    use = np.bincount(code, weights=weights + 1e-9, minlength=len(names))
    use[names == ""] = -1.0
    order = np.argsort(-use, kind="stable")
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    number = np.minimum(rank[code], NAMED_CATEGORIES)
    number[filled == ""] = NAMED_CATEGORIES + 1
    return [str(name) for name in names[order] if name != ""], number


def _summed(keys: Ints, values: Floats) -> tuple[Ints, Floats]:
    """Sorted distinct keys, and the sum of the values of each."""
    distinct, place = np.unique(keys, return_inverse=True)
    return distinct, np.bincount(place, weights=values, minlength=len(distinct)).astype(np.float64)


def _look_up(sorted_keys: Ints, keys: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    if not len(sorted_keys):
        return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return place, sorted_keys[place] == keys
