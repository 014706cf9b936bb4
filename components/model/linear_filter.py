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
    # A row is mostly faint entries: the value that it ends at is cheaper to find than an order of them all. With a
    # diagonal it is looked for one place further down: the diagonal is left out of the few that are found.
    last_R = _kth_largest(rows.data, rows.indptr, count=count if first_row is None else count + 1)
    last_R = np.maximum(last_R, np.finfo(np.float32).smallest_subnormal)
    places = np.flatnonzero(rows.data >= np.repeat(last_R, lengths))
    row_of_place = np.repeat(np.arange(len(lengths)), np.diff(np.searchsorted(places, rows.indptr)))
    if first_row is not None:
        is_other = rows.indices[places] != row_of_place + first_row
        places, row_of_place = places[is_other], row_of_place[is_other]
    # Of those equal to a row's last, the highest columns are too many.
    above = rows.data[places] > last_R[row_of_place]
    room_R = count - np.bincount(row_of_place[above], minlength=len(lengths))
    equal = np.flatnonzero(~above & (np.bincount(row_of_place, minlength=len(lengths)) > count)[row_of_place])
    equal = equal[np.lexsort((rows.indices[places[equal]], row_of_place[equal]))]
    row = row_of_place[equal]
    dropped = equal[np.arange(len(row)) - np.searchsorted(row, row) >= room_R[row]]
    places, row_of_place = np.delete(places, dropped), np.delete(row_of_place, dropped)
    indptr = np.searchsorted(row_of_place, np.arange(len(lengths) + 1))
    strongest = sp.csr_matrix((rows.data[places], rows.indices[places], indptr), shape=rows.shape)
    strongest.sort_indices()
    return strongest


def _kth_largest(data: np.ndarray, indptr: np.ndarray, *, count: int) -> np.ndarray:
    """(R,) the `count`-th largest value of each row; 0 where it has fewer."""
    last_R = np.zeros(len(indptr) - 1, dtype=data.dtype)
    longer = np.flatnonzero(np.diff(indptr) >= count)
    for row, start, end in zip(longer.tolist(), indptr[longer].tolist(), indptr[longer + 1].tolist(), strict=True):
        of_row = data[start:end].copy()
        of_row.partition(end - start - count)
        last_R[row] = of_row[end - start - count]
    return last_R


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
