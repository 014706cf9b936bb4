"""The linear graph filter: a closed-form walk user -> item -> user -> item, kept as item-item rows.

F = D_i^-a Rᵀ D_u^-b R D_i^-c, with R the users' decayed histories. (a, b, c) = (1, 1, 0) is the P3 random walk
(Cooper et al., WWW 2014), (½, 1, ½) the ideal low-pass filter's linear part in GF-CF (Shen et al., CIKM 2021).
Only the strongest entries of a row are kept: 128 lose nothing measurable, and no user's history leaves the graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from components.model.histories import Histories

# Rows of the item-item product held dense at once: 2,048 x 100 k items are 800 MB.
BLOCK_BYTES = 400 << 20


@dataclass(frozen=True, kw_only=True)
class FilterExponents:
    """How strongly the walk is normalised by the degrees of its first item, its user and its last item."""

    first_item: float = 0.5
    user: float = 0.5
    last_item: float = 0.5


def build_filter(
    strengths: sp.csr_matrix,
    *,
    exponents: FilterExponents,
    neighbours: int,
    items: np.ndarray | None = None,
) -> sp.csr_matrix:
    """(U, I) decayed histories -> (I, I) filter with at most `neighbours` entries a row and an empty diagonal.

    `items` restricts rows and columns to these indices (the warm items); other rows and columns stay empty.
    """
    num_items = strengths.shape[1]
    kept = np.arange(num_items) if items is None else np.asarray(items)
    inner = strengths[:, kept].astype(np.float32)
    user_degree = np.asarray(inner.sum(axis=1)).ravel()
    item_degree = np.asarray(inner.sum(axis=0)).ravel()
    halved = sp.diags(_power(user_degree, exponents.user / 2)) @ inner
    left = (sp.diags(_power(item_degree, exponents.first_item)) @ halved.T).tocsr()
    right = (halved @ sp.diags(_power(item_degree, exponents.last_item))).tocsr()

    width = min(neighbours, max(len(kept) - 1, 1))
    block = max(1, BLOCK_BYTES // (4 * max(len(kept), 1)))
    rows, cols, values = [], [], []
    for start in range(0, len(kept), block):
        dense = np.asarray((left[start : start + block] @ right).todense(), dtype=np.float32)
        local = np.arange(dense.shape[0])
        dense[local, start + local] = 0  # an item says nothing new about itself
        top = torch.topk(torch.from_numpy(dense), min(width, dense.shape[1]), dim=1, sorted=False)
        rows.append(np.repeat(kept[start + local], top.indices.shape[1]))
        cols.append(kept[top.indices.numpy().ravel()])
        values.append(top.values.numpy().ravel())
    if not rows:
        return sp.csr_matrix((num_items, num_items), dtype=np.float32)
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(cols)))
    matrix = sp.csr_matrix(entries, shape=(num_items, num_items), dtype=np.float32)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def _power(degree: np.ndarray, exponent: float) -> np.ndarray:
    """degree^-exponent, 0 where the degree is 0."""
    scaled = np.power(np.maximum(degree, 1e-12), -exponent)
    return np.asarray(np.where(degree > 0, scaled, 0), dtype=np.float32)


@dataclass(frozen=True)
class FilterRows:
    """The filter as the bundle ships it."""

    indptr: Tensor  # (I+1,) int64
    indices: Tensor  # (E,) int32
    values: Tensor  # (E,) float32

    @classmethod
    def from_scipy(cls, matrix: sp.csr_matrix) -> FilterRows:
        return cls(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int32)),
            torch.from_numpy(matrix.data.astype(np.float32)),
        )

    def to(self, device: torch.device) -> FilterRows:
        return FilterRows(self.indptr.to(device), self.indices.to(device), self.values.to(device))

    @property
    def num_items(self) -> int:
        return len(self.indptr) - 1

    def apply(self, histories: Histories, strengths_N: Tensor) -> Tensor:
        """Σ_j strength_uj F_ji -> (B, I)."""
        size = (len(histories), self.num_items)
        if len(histories) > 1 and not strengths_N.is_cuda:
            # scipy's sparse product with a sparse result is several times faster than torch's dense one here
            left = sp.csr_matrix(
                (strengths_N.numpy(), histories.items.numpy(), histories.indptr.numpy()), shape=size, copy=False
            )
            return torch.from_numpy((left @ self._scipy()).toarray())
        first = self.indptr[histories.items]
        lengths = self.indptr[histories.items + 1] - first
        ends = lengths.cumsum(0)
        entry = torch.arange(int(lengths.sum()), device=first.device) + torch.repeat_interleave(
            first - (ends - lengths), lengths
        )
        user_of_entry = torch.repeat_interleave(histories.user_of_entry, lengths)
        out = strengths_N.new_zeros(size[0] * size[1])
        target = user_of_entry * size[1] + self.indices[entry]
        out.index_add_(0, target, self.values[entry] * torch.repeat_interleave(strengths_N, lengths))
        return out.view(size)

    def _scipy(self) -> sp.csr_matrix:
        shape = (self.num_items, self.num_items)
        return sp.csr_matrix((self.values.numpy(), self.indices.numpy(), self.indptr.numpy()), shape=shape, copy=False)
