"""The linear graph filter: a closed-form walk user -> item -> user -> item, kept as item-item rows.

F = D_i^-a Rᵀ D_u^-b R D_i^-c, with R the users' decayed histories. (a, b, c) = (1, 1, 0) is the P3 random walk
(Cooper et al., WWW 2014), (½, 1, ½) the ideal low-pass filter's linear part in GF-CF (Shen et al., CIKM 2021).
Only the strongest entries of a row are kept: 128 lose nothing measurable, and no user's history leaves the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from components.model.histories import Histories

# Rows of the item-item product held at once: some 10 k entries each, so 1,024 rows are about 100 MB.
BLOCK_ROWS = 1024


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

    `items`, ascending, restricts rows and columns to these indices (the warm items); others stay empty.
    """
    num_items = strengths.shape[1]
    kept = np.arange(num_items) if items is None else np.asarray(items)
    inner = strengths[:, kept].astype(np.float32)
    user_degree = np.asarray(inner.sum(axis=1)).ravel()
    item_degree = np.asarray(inner.sum(axis=0)).ravel()
    halved = sp.diags(_power(user_degree, exponents.user / 2)) @ inner
    left = (sp.diags(_power(item_degree, exponents.first_item)) @ halved.T).tocsr()
    right = (halved @ sp.diags(_power(item_degree, exponents.last_item))).tocsr()

    lengths_I, parts = np.zeros(num_items, dtype=np.int64), []
    for start, product in _products(left, right):
        rows = strongest_per_row(product, count=neighbours, first_row=start)
        lengths_I[kept[start : start + rows.shape[0]]] = np.diff(rows.indptr)
        parts.append(rows)
    data = np.concatenate([np.zeros(0, dtype=np.float32), *(rows.data for rows in parts)])
    indices = kept[np.concatenate([np.zeros(0, dtype=np.int32), *(rows.indices for rows in parts)])]
    indptr = np.concatenate([[0], np.cumsum(lengths_I)])
    return sp.csr_matrix((data, indices, indptr), shape=(num_items, num_items))


def _products(left: sp.csr_matrix, right: sp.csr_matrix) -> Iterator[tuple[int, sp.csr_matrix]]:
    """First row and rows of left @ right, a bounded number of rows at a time."""
    for start in range(0, left.shape[0], BLOCK_ROWS):
        yield start, sp.csr_matrix(left[start : start + BLOCK_ROWS] @ right)


def strongest_per_row(matrix: sp.csr_matrix, *, count: int, first_row: int = 0) -> sp.csr_matrix:
    """The largest `count` positive entries of each row, without the diagonal, columns sorted.

    `first_row` is the row number that the matrix's first row has in the square matrix it was cut from.
    """
    rows = sp.csr_matrix(matrix, dtype=np.float32)
    return _strongest(rows, count=count, first_row=first_row)


def strongest_entries(matrix: sp.csr_matrix, *, count: int) -> sp.csr_matrix:
    """The largest `count` positive entries of each row of any matrix, columns sorted."""
    return _strongest(sp.csr_matrix(matrix, dtype=np.float32), count=count, first_row=None)


def _strongest(rows: sp.csr_matrix, *, count: int, first_row: int | None) -> sp.csr_matrix:
    lengths = np.diff(rows.indptr)
    row_of_entry = np.repeat(np.arange(len(lengths), dtype=rows.indices.dtype), lengths)
    data = rows.data
    if first_row is not None:
        data = data.copy()
        data[rows.indices == row_of_entry + first_row] = 0
    # A row is mostly faint entries: the value that it ends at is cheaper to find than an order of them all.
    last_R = np.zeros(len(lengths), dtype=data.dtype)
    for row in np.flatnonzero(lengths > count).tolist():
        of_row = data[rows.indptr[row] : rows.indptr[row + 1]]
        last_R[row] = np.partition(of_row, len(of_row) - count)[len(of_row) - count]
    places = np.flatnonzero((data > 0) & (data >= last_R[row_of_entry]))
    indptr = np.searchsorted(places, rows.indptr)
    too_many = np.flatnonzero(np.diff(indptr) > count)
    if len(too_many):
        dropped = [
            _last_equals(places[indptr[row] : indptr[row + 1]], data, rows.indices, count) for row in too_many.tolist()
        ]
        places = np.setdiff1d(places, np.concatenate(dropped), assume_unique=True)
        indptr = np.searchsorted(places, rows.indptr)
    strongest = sp.csr_matrix((data[places], rows.indices[places], indptr), shape=rows.shape)
    strongest.sort_indices()
    return strongest


def _last_equals(places: np.ndarray, data: np.ndarray, columns: np.ndarray, count: int) -> np.ndarray:
    """Which of a row's places are too many: of those equal to its last, the ones with the highest columns."""
    equal = places[data[places] == data[places].min()]
    return equal[np.argsort(columns[equal])][len(equal) - (len(places) - count) :]


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

    @cached_property
    def row_means(self) -> Tensor:
        """(I,) what an item adds to the average item that it leads to; 0 where it leads nowhere."""
        lengths_I = self.indptr.diff()
        return torch.segment_reduce(self.values, "sum", lengths=lengths_I) / lengths_I.clamp(min=1)

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
