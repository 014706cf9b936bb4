"""Parts of the users and of the items, for which metrics are looked at apart.

Items fall into three parts that each hold a third of all interactions: the head (few items, much taken), the torso, and
the tail (all the rest, items without any interaction among them).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

STRATA: tuple[str, ...] = ("head", "torso", "tail")


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
