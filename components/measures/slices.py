"""Parts of the users and of the items, for which metrics are looked at apart.

Items fall into three parts that each hold a third of all interactions: the head (few items, much taken), the torso, and
the tail (all the rest, items without any interaction among them). Cold items, hardly known at the cutoff, are of the
tail as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

STRATA: tuple[str, ...] = ("head", "torso", "tail")
# Fewer users than this, and an item is known by its content alone.
COLD_USERS = 5
PRICE_BANDS: tuple[str, ...] = ("cheapest quarter", "second quarter", "third quarter", "dearest quarter")


def item_strata(popularity_I: NDArray[np.int64]) -> NDArray[np.int8]:
    """-> (I,) index into STRATA. Equal popularity is ordered by item, so the parts are the same on every machine."""
    order = np.argsort(-popularity_I, kind="stable")
    # The share of interactions held by the items before this one: the most popular item is always of the head.
    before = np.cumsum(popularity_I[order]) - popularity_I[order]
    share = before / max(int(popularity_I.sum()), 1)
    strata_I = np.empty(len(popularity_I), dtype=np.int8)
    strata_I[order] = np.minimum((share * len(STRATA)).astype(np.int8), len(STRATA) - 1)
    strata_I[popularity_I == 0] = len(STRATA) - 1
    return strata_I


def targets_of(targets_BI: sp.csr_matrix, is_member_I: NDArray[np.bool_]) -> sp.csr_matrix:
    """The targets that are members; metrics on them say how well that part of the items is found."""
    keep = is_member_I[targets_BI.indices]
    rows = np.repeat(np.arange(targets_BI.shape[0]), np.diff(targets_BI.indptr))[keep]
    return sp.csr_matrix((targets_BI.data[keep], (rows, targets_BI.indices[keep])), shape=targets_BI.shape)


def history_slices(lengths_B: NDArray[np.int64]) -> Mapping[str, NDArray[np.bool_]]:
    """Distinct items a user had -> name -> (B,) members: users without a history, and thirds of the others."""
    has_history = lengths_B > 0
    known = lengths_B[has_history]
    low, high = (int(bound) for bound in np.quantile(known, [1 / 3, 2 / 3])) if known.size else (0, 0)
    return {
        "no history": ~has_history,
        f"short history (1 to {low} items)": has_history & (lengths_B <= low),
        f"middling history ({low + 1} to {high})": (lengths_B > low) & (lengths_B <= high),
        f"long history (over {high})": has_history & (lengths_B > high),
    }


def largest_groups(code_I: NDArray[np.int64], weight_I: NDArray[np.int64], *, most: int) -> list[int]:
    """The codes (-1 is none) of which the most was taken, `most` of them at the most, equals by code."""
    known = code_I >= 0
    taken = np.bincount(code_I[known], weights=weight_I[known]) if known.any() else np.zeros(0)
    order = np.argsort(-taken, kind="stable")
    return [int(code) for code in order[:most] if taken[code] > 0]


def price_quarters(price_I: NDArray[np.float64], weight_I: NDArray[np.int64]) -> NDArray[np.int8]:
    """-> (I,) index into PRICE_BANDS, -1 where the price is unknown: quarters of what was taken, by its price."""
    band_I = np.full(len(price_I), -1, dtype=np.int8)
    known = np.flatnonzero(~np.isnan(price_I))
    order = known[np.argsort(price_I[known], kind="stable")]
    before = np.cumsum(weight_I[order]) - weight_I[order]
    total = int(weight_I[order].sum())
    if total == 0:
        return band_I
    band = np.minimum(before * len(PRICE_BANDS) // total, len(PRICE_BANDS) - 1).astype(np.int8)
    # Equal prices are of one band: that of the first of them.
    starts = np.append(True, np.diff(price_I[order]) != 0)
    band_I[order] = band[np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))]
    return band_I
