"""What is known of users and items at one moment: the input that every baseline is fit on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

RECENT_DAYS = 28.0
FREQUENCY_HALF_LIFE_DAYS = 84.0


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Users by items, as known at one moment. All matrices are (U, I) CSR, float32, without stored zeros."""

    seen: sp.csr_matrix
    """1 where the user has had the item."""
    frequency: sp.csr_matrix
    """Sum of the user's event weights with the item."""
    recent_frequency: sp.csr_matrix
    """The same, each event's weight halved every FREQUENCY_HALF_LIFE_DAYS."""
    recent_popularity: NDArray[np.float64]
    """(I,) distinct users in the last RECENT_DAYS."""
    category: NDArray[np.int64]
    """(I,) number of the item's category, -1 where it has none."""

    @classmethod
    def of(
        cls,
        *,
        users: ArrayLike,
        items: ArrayLike,
        weights: ArrayLike,
        ages_days: ArrayLike,
        category: ArrayLike,
        num_users: int,
    ) -> Interactions:
        """Events (N,), each of one user with one item: weight above 0, and days from the event to the moment."""
        user_N, item_N = np.asarray(users, dtype=np.int64), np.asarray(items, dtype=np.int64)
        weight_N, age_N = np.asarray(weights, dtype=np.float64), np.asarray(ages_days, dtype=np.float64)
        category_I = np.asarray(category, dtype=np.int64)
        if not (weight_N > 0).all():
            raise ValueError("Interactions are of events with a weight above 0; leave the others out.")
        shape = (num_users, len(category_I))

        def matrix(values_N: NDArray[np.float64]) -> sp.csr_matrix:
            summed = sp.csr_matrix((values_N, (user_N, item_N)), shape=shape)
            summed.sum_duplicates()
            return summed.astype(np.float32)

        frequency = matrix(weight_N)
        is_recent = age_N <= RECENT_DAYS
        lately = np.unique(user_N[is_recent] * shape[1] + item_N[is_recent]) % max(shape[1], 1)
        return cls(
            seen=_ones_like(frequency),
            frequency=frequency,
            recent_frequency=matrix(weight_N * np.exp2(-age_N / FREQUENCY_HALF_LIFE_DAYS)),
            recent_popularity=np.bincount(lately, minlength=shape[1]).astype(np.float64),
            category=category_I,
        )

    @property
    def popularity(self) -> NDArray[np.int64]:
        """(I,) distinct users, ever."""
        return np.bincount(self.seen.indices, minlength=self.seen.shape[1])


def _ones_like(matrix: sp.csr_matrix) -> sp.csr_matrix:
    ones = np.ones(matrix.nnz, dtype=np.float32)
    return sp.csr_matrix((ones, matrix.indices, matrix.indptr), shape=matrix.shape)
