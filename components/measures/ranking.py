"""Ranked lists and what they are worth, user by user.

Protocol: a list holds the k best of all items; a hit is a listed item among the user's targets T.

    recall = hits / |T|      precision = hits / k      hit rate = 1 if any hit
    NDCG   = Σ_hits 1/log2(rank + 1)  /  Σ_{rank ≤ min(k, |T|)} 1/log2(rank + 1)
    reciprocal rank = 1 / rank of the first hit, 0 without one

A user without targets has no value (nan): leave such users out before taking means.

Legend of shape suffixes: B users, I items, k length of a list.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from torch import Tensor

from components.model.ranking import NO_ITEM, top_k

Ranked = NDArray[np.int64]  # (B, k), best first, NO_ITEM where fewer items are left
PerUser = NDArray[np.float64]  # (B,)


@dataclass(frozen=True, kw_only=True)
class ListMetrics:
    """One value a user and metric."""

    recall: PerUser
    precision: PerUser
    ndcg: PerUser
    hit_rate: PerUser
    reciprocal_rank: PerUser

    def means(self) -> dict[str, float]:
        """Mean of each metric over the users; nan where there is no user or a user has no value."""
        return {name: _mean(values) for name, values in self.by_name().items()}

    def by_name(self) -> dict[str, PerUser]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def top_lists(scores_BI: Tensor, *, k: int) -> Ranked:
    """Scores (B, I), -inf for an item that may not be listed -> the k best items a user, by the rule that serves."""
    ranked: Ranked = top_k(scores_BI, k=k)[0].cpu().numpy()
    return ranked


def hits(ranked_Bk: Ranked, targets_BI: sp.csr_matrix) -> NDArray[np.bool_]:
    """-> (B, k), true where the listed item is a target. The targets' columns may run past the listed items."""
    num_users, width = targets_BI.shape
    if len(ranked_Bk) != num_users:
        raise ValueError(f"{len(ranked_Bk)} lists for {num_users} users")
    rows = np.repeat(np.arange(num_users, dtype=np.int64), np.diff(targets_BI.indptr))
    wanted = np.sort(rows * width + targets_BI.indices)
    if not wanted.size:
        return np.zeros(ranked_Bk.shape, dtype=bool)
    listed = np.arange(num_users, dtype=np.int64)[:, None] * width + ranked_Bk
    place = np.searchsorted(wanted, listed).clip(max=wanted.size - 1)
    return (wanted[place] == listed) & (ranked_Bk != NO_ITEM)


def list_metrics(ranked_Bk: Ranked, targets_BI: sp.csr_matrix) -> ListMetrics:
    """Lists without repeats and targets, one row a user -> metrics a user."""
    k = ranked_Bk.shape[1]
    hit_Bk = hits(ranked_Bk, targets_BI)
    num_targets = np.diff(targets_BI.indptr)
    num_hits = hit_Bk.sum(axis=1)
    discount = 1 / np.log2(np.arange(k) + 2)
    # Summed as the ideal is, one rank after the other, so that a perfect list is worth exactly 1.
    gain = np.cumsum(hit_Bk * discount, axis=1)[:, -1]
    ideal = np.concatenate([[np.nan], np.cumsum(discount)])[np.minimum(k, num_targets)]
    first = np.where(num_hits > 0, hit_Bk.argmax(axis=1), np.inf)
    unknown = np.where(num_targets > 0, 0.0, np.nan)
    return ListMetrics(
        recall=num_hits / np.where(num_targets > 0, num_targets, np.nan),
        precision=num_hits / k + unknown,
        ndcg=gain / ideal,
        hit_rate=(num_hits > 0) + unknown,
        reciprocal_rank=1 / (first + 1) + unknown,
    )


def coverage(ranked_Bk: Ranked, *, num_items: int) -> float:
    """Share of the items that stand in at least one list."""
    if num_items == 0:
        return float("nan")
    listed = np.unique(ranked_Bk)
    return float((listed != NO_ITEM).sum() / num_items)


def novelty(ranked_Bk: Ranked, popularity_I: NDArray[np.int64], *, num_users: int) -> PerUser:
    """Mean of -log2(share of users who know the item) over a list, in bits: 0 is what everybody has.

    An item without users counts as if it had one. nan for an empty list.
    """
    bits_I = -np.log2(np.maximum(popularity_I, 1) / max(num_users, 1))
    return _list_mean(ranked_Bk, bits_I)


def popularity_lift(ranked_Bk: Ranked, popularity_I: NDArray[np.int64], targets_BI: sp.csr_matrix) -> float:
    """Popularity of what is listed over popularity of what the users went on to take; 1 is no bias.

    Means over users of a list's and of a target set's mean popularity. nan without lists or without targets.
    """
    width = targets_BI.shape[1]
    known_I = np.zeros(width, dtype=np.float64)
    known_I[: len(popularity_I)] = popularity_I
    num_targets = np.diff(targets_BI.indptr)
    has_targets = num_targets > 0
    taken = (targets_BI.astype(bool) @ known_I)[has_targets] / num_targets[has_targets]
    listed = _list_mean(ranked_Bk, known_I)
    base = _mean(taken)
    return float(_mean(listed[~np.isnan(listed)]) / base) if base > 0 else float("nan")


def _list_mean(ranked_Bk: Ranked, values_I: NDArray[np.float64]) -> PerUser:
    is_listed = ranked_Bk != NO_ITEM
    total = np.where(is_listed, values_I[np.where(is_listed, ranked_Bk, 0)], 0.0).sum(axis=1)
    count = is_listed.sum(axis=1)
    return total / np.where(count > 0, count, np.nan)


def _mean(values: PerUser) -> float:
    return float(values.mean()) if values.size else float("nan")
