"""What lists are like, whatever users then took: variety within a list, likeness to the user's tastes, emptiness.

Legend of shape suffixes: B users, k length of a list, I items, C categories.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from components.measures.ranking import PerUser, Ranked
from components.model.ranking import NO_ITEM

# Steck's smoothing: a category that the list lacks altogether would make the divergence infinite.
CALIBRATION_SMOOTHING = 0.01
_CHUNK_CELLS = 20_000_000


def intra_list_diversity(ranked_Bk: Ranked, category_I: NDArray[np.int64]) -> PerUser:
    """Share of a list's pairs of items whose categories differ: 0 is one category, 1 all different.

    An item without a category (-1) differs from every other. nan for a list of fewer than two items. The mean
    dissimilarity of Smyth & McClave, Similarity vs. Diversity, 2001, with the category as the likeness.
    """
    counts = _category_counts(ranked_Bk, category_I)
    same_B = np.asarray((counts.multiply(counts) - counts).sum(axis=1)).ravel()
    length_B = (ranked_Bk != NO_ITEM).sum(axis=1).astype(np.float64)
    pairs_B = length_B * (length_B - 1)
    return 1 - same_B / np.where(pairs_B > 0, pairs_B, np.nan)


def category_miscalibration(ranked_Bk: Ranked, category_I: NDArray[np.int64], history_BI: sp.csr_matrix) -> PerUser:
    """How far the categories of a list are from those of the user's history: KL(history || list), 0 is alike.

    Steck, Calibrated Recommendations, RecSys 2018: the list's share of a category is mixed with a little of the
    history's. nan for a user without a categorised history, or with a list that has no categorised item.
    """
    num_categories = int(category_I.max(initial=-1)) + 1
    result = np.full(len(ranked_Bk), np.nan)
    if not num_categories:
        return result
    membership = _membership(category_I)
    listed = _category_counts(ranked_Bk, category_I)
    had = sp.csr_matrix(history_BI.astype(bool).astype(np.float64) @ membership)
    step = max(1, _CHUNK_CELLS // num_categories)
    for start in range(0, len(ranked_Bk), step):
        rows = slice(start, start + step)
        p_BC, q_BC = had[rows].toarray(), listed[rows].toarray()
        p_B, q_B = p_BC.sum(axis=1, keepdims=True), q_BC.sum(axis=1, keepdims=True)
        known_B = ((p_B > 0) & (q_B > 0)).ravel()
        p_BC = p_BC[known_B] / p_B[known_B]
        q_BC = (1 - CALIBRATION_SMOOTHING) * q_BC[known_B] / q_B[known_B] + CALIBRATION_SMOOTHING * p_BC
        ratio_BC = np.divide(p_BC, q_BC, out=np.ones_like(p_BC), where=p_BC > 0)
        result[np.flatnonzero(known_B) + start] = (p_BC * np.log(ratio_BC)).sum(axis=1)
    return result


def short_lists(ranked_Bk: Ranked) -> NDArray[np.bool_]:
    """(B,) whether a list has fewer items than it was asked for, or none."""
    return (ranked_Bk == NO_ITEM).any(axis=1)


def _category_counts(ranked_Bk: Ranked, category_I: NDArray[np.int64]) -> sp.csr_matrix:
    """(B, C): items of each category in each list."""
    num_categories = max(int(category_I.max(initial=-1)) + 1, 1)
    is_listed_Bk = ranked_Bk != NO_ITEM
    category_Bk = category_I[np.where(is_listed_Bk, ranked_Bk, 0)] if len(category_I) else np.full_like(ranked_Bk, -1)
    row_N, place_N = np.nonzero(is_listed_Bk & (category_Bk >= 0))
    ones = np.ones(len(row_N))
    return sp.csr_matrix((ones, (row_N, category_Bk[row_N, place_N])), shape=(len(ranked_Bk), num_categories))


def _membership(category_I: NDArray[np.int64]) -> sp.csr_matrix:
    """(I, C): 1 where the item is of the category."""
    items = np.flatnonzero(category_I >= 0)
    shape = (len(category_I), int(category_I.max(initial=-1)) + 1)
    return sp.csr_matrix((np.ones(len(items)), (items, category_I[items])), shape=shape)
