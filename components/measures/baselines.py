"""What a recommender must beat: popularity in three forms, item-kNN, RP3, and the user's own habits.

Each is fit on the interactions of one moment and scores all items for the users in them. Where one knows
nothing, of a user without history or of items that nothing leads to, it falls back on popularity, so that none is held
down by what it cannot know.

Item-kNN and RP3 keep every neighbour. Both are sums over the paths item -> user -> item,

    score(u, j) = D_j^-b Σ_v n_v^-c x_vj Σ_i x_vi D_i^-a x_ui      D: users of an item, n: items of a user

so the inner sum is one number for each pair of users, and no item-by-item matrix is ever formed. Keeping only the
strongest neighbours of each item was tried on a year of groceries: it was no better and cost several times as much.

Legend of shape suffixes: B users of a batch, U all users, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.measures.interactions import FREQUENCY_HALF_LIFE_DAYS, Interactions

# Pseudo-count of the population's category shares in a user's own, in items.
CATEGORY_PRIOR = 50.0

Rows = NDArray[np.int64]  # (B,) rows of the interactions that a baseline was fit on


class Baseline(Protocol):
    """Fit on what is known at one moment; scores of one user can be compared with each other only."""

    name: str

    @property
    def parameters(self) -> Mapping[str, float]:
        """What distinguishes this baseline from others of its class."""

    def fit(self, known: Interactions) -> None: ...

    def score(self, rows: Rows) -> Tensor:
        """Users (B,) -> (B, I) float32, freshly made: the caller may write into it."""


class AllTimePopularity:
    """Distinct users an item, ever."""

    name = "popularity"
    parameters: Mapping[str, float] = {}

    def fit(self, known: Interactions) -> None:
        self._popularity_I = _tensor(known.popularity)

    def score(self, rows: Rows) -> Tensor:
        return self._popularity_I.repeat(len(rows), 1)


class RecentPopularity:
    """Distinct users an item in the last 28 days; all-time popularity orders what nobody had lately."""

    name = "recent popularity"
    parameters: Mapping[str, float] = {}

    def fit(self, known: Interactions) -> None:
        self._popularity_I = _tensor(_recent_then_ever(known))

    def score(self, rows: Rows) -> Tensor:
        return self._popularity_I.repeat(len(rows), 1)


class CategoryPopularity:
    """Recent popularity times the user's share of the item's category, to the power `exponent`."""

    name = "category popularity"

    def __init__(self, *, exponent: float) -> None:
        self.exponent = exponent

    @property
    def parameters(self) -> Mapping[str, float]:
        return {"exponent": self.exponent}

    def fit(self, known: Interactions) -> None:
        num_items = len(known.category)
        column_I = known.category + 1  # items without a category are one more of them
        members = sp.csr_matrix(
            (np.ones(num_items, dtype=np.float32), (np.arange(num_items), column_I)),
            shape=(num_items, int(column_I.max(initial=0)) + 1),
        )
        counts_UC = np.asarray((known.seen @ members).todense(), dtype=np.float64)
        population_C = counts_UC.sum(axis=0)
        prior_C = CATEGORY_PRIOR * population_C / max(population_C.sum(), 1)
        share_UC = (counts_UC + prior_C) / (counts_UC.sum(axis=1, keepdims=True) + CATEGORY_PRIOR)
        self._taste_UC = _tensor(share_UC**self.exponent)
        self._column_I = torch.from_numpy(column_I)
        self._popularity_I = _tensor(_recent_then_ever(known))

    def score(self, rows: Rows) -> Tensor:
        return self._taste_UC[torch.from_numpy(rows)].index_select(1, self._column_I).mul_(self._popularity_I)


class _ItemPaths:
    """Sums over paths item -> user -> item; the module's docstring has the formula."""

    def __init__(self, *, from_exponent: float, user_exponent: float, to_exponent: float) -> None:
        self._exponents = (from_exponent, user_exponent, to_exponent)

    def fit(self, known: Interactions) -> None:
        from_exponent, user_exponent, to_exponent = self._exponents
        popularity_I = np.maximum(known.popularity, 1).astype(np.float64)
        length_U = np.maximum(np.diff(known.seen.indptr), 1).astype(np.float64)
        back = sp.diags_array(popularity_I**-from_exponent) @ known.seen.T @ sp.diags_array(length_U**-user_exponent)
        self._back_IU = sp.csr_matrix(back.astype(np.float32))
        self._seen = known.seen
        by_item = sp.csr_matrix(known.seen.T)
        self._users_of_item = torch.from_numpy(by_item.indices.astype(np.int64))
        self._item_offsets = torch.from_numpy(by_item.indptr.astype(np.int64))
        self._to_I = _tensor(popularity_I**-to_exponent)
        # Smaller than any sum over paths: it orders only the items that no path leads to.
        self._filler_I = _tensor(popularity_I / popularity_I.max(initial=1) * 1e-20)

    def score(self, rows: Rows) -> Tensor:
        history = self._seen[rows]
        nearness_UB = torch.from_numpy(np.ascontiguousarray((history @ self._back_IU).toarray().T))
        scores_IB = torch.nn.functional.embedding_bag(
            self._users_of_item, nearness_UB, self._item_offsets, mode="sum", include_last_offset=True
        )
        return scores_IB.mul_(self._to_I[:, None]).add_(self._filler_I[:, None]).T


class ItemKnn(_ItemPaths):
    """Cosine of items' rows of users: similarity(i, j) = Σ_v n_v^-c x_vi x_vj / √(D_i D_j).

    `user_exponent` c: 0 is the plain cosine, at 1 a user of many items says less of each pair.
    """

    name = "item-kNN"

    def __init__(self, *, user_exponent: float) -> None:
        self.user_exponent = user_exponent
        super().__init__(from_exponent=0.5, user_exponent=user_exponent, to_exponent=0.5)

    @property
    def parameters(self) -> Mapping[str, float]:
        return {"user_exponent": self.user_exponent}


class Rp3(_ItemPaths):
    """RP3β: a random walk item -> user -> item, its end's popularity divided out to the power `beta`."""

    name = "RP3"

    def __init__(self, *, beta: float) -> None:
        self.beta = beta
        super().__init__(from_exponent=1.0, user_exponent=1.0, to_exponent=beta)

    @property
    def parameters(self) -> Mapping[str, float]:
        return {"beta": self.beta}


class OwnFrequency:
    """What the user has had most, then recent popularity: the hard one to beat where purchases repeat."""

    name = "own frequency"

    def __init__(self, *, is_decayed: bool) -> None:
        self.is_decayed = is_decayed

    @property
    def parameters(self) -> Mapping[str, float]:
        return {"half_life_days": FREQUENCY_HALF_LIFE_DAYS} if self.is_decayed else {}

    def fit(self, known: Interactions) -> None:
        self._frequency = known.recent_frequency if self.is_decayed else known.frequency
        popularity_I = _recent_then_ever(known)
        # Below the least of own frequencies, so that popularity only orders what the user never had, and ties.
        least = float(self._frequency.data.min(initial=1.0))
        self._popularity_I = _tensor(popularity_I / max(popularity_I.max(initial=0), 1e-12) * least * 1e-3)

    def score(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self._frequency[rows].toarray()).add_(self._popularity_I)


def _recent_then_ever(known: Interactions) -> NDArray[np.float64]:
    """(I,) recent popularity; all-time popularity, scaled below one recent user, breaks its ties."""
    ever = known.popularity
    return known.recent_popularity + 0.5 * ever / max(ever.max(initial=0), 1)


def _tensor(values: NDArray[np.float64] | NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
