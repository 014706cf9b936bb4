"""Sums of rows of a sparse matrix over many histories at once: Σ_n strength_n · row of item n, dense.

Legend of shape suffixes: I items, E entries of the matrix, W its columns, B users, N entries of their histories, K
those of them whose rows hold anything.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """What histories say of a matrix: its rows that are added up, and how much each counts."""

    starts_B: Slots  # (B + 1,)
    rows_K: Slots
    strengths_K: Floats


class HistorySums:
    """Adds up rows of one matrix. Safe to share between threads."""

    def __init__(self, indptr: Ints, columns_E: Ints | Slots, values_E: Floats, *, num_columns: int) -> None:
        """Compressed rows, one an item. Empty ones are left out, since each would cost as much as some entries."""
        lengths_I = np.diff(indptr)
        holds_any_I = lengths_I > 0
        self._row_I: Slots = np.where(holds_any_I, np.cumsum(holds_any_I) - 1, -1).astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(lengths_I[holds_any_I])]).astype(np.int32)
        columns = columns_E.astype(np.int32)
        self._matrix = sp.csr_matrix((values_E, columns, starts), shape=(len(starts) - 1, num_columns), copy=False)
        # MKL adds up in a dense row, scipy in a sparse one. Not every processor has MKL.
        self._matrix_torch: torch.Tensor | None = None
        if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # said once
                self._matrix_torch = _as_torch(starts, columns, values_E, num_columns=num_columns)

    @property
    def num_columns(self) -> int:
        columns: int = self._matrix.shape[1]
        return columns

    def weighted(self, starts_B: Ints, items_N: Ints, strengths_N: Floats) -> Weighted:
        """`starts_B`: (B + 1,) where each user's entries start, and the end of the last."""
        row_N = self._row_I.take(items_N)
        kept_K = np.flatnonzero(row_N >= 0)
        return Weighted(
            starts_B=np.searchsorted(kept_K, starts_B).astype(np.int32),
            rows_K=row_N.take(kept_K),
            strengths_K=strengths_N.take(kept_K),
        )

    def of(self, users: Weighted, first: int, *, out: Floats) -> None:
        """The sums of as many users as `out` has rows (B, W), from the `first` on."""
        starts_B = users.starts_B[first : first + len(out) + 1]
        entries = slice(int(starts_B[0]), int(starts_B[-1]))
        rows_K, strengths_K = users.rows_K[entries], users.strengths_K[entries]
        starts_B = starts_B - starts_B[0]
        num_rows = self._matrix.shape[0]
        if not len(rows_K):
            out[:] = 0
        elif self._matrix_torch is None:
            left = sp.csr_matrix((strengths_K, rows_K, starts_B), shape=(len(out), num_rows), copy=False)
            (left @ self._matrix).toarray(out=out)
        else:
            found = torch.from_numpy(out)
            left_torch = _as_torch(starts_B, rows_K, strengths_K, num_columns=num_rows)
            torch.addmm(found, left_torch, self._matrix_torch, beta=0, out=found)


def _as_torch(starts: Slots, columns: Slots, values: Floats, *, num_columns: int) -> torch.Tensor:
    """With the small indices that MKL takes."""
    indptr, indices, data = torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values)
    return torch.sparse_csr_tensor(indptr, indices, data, size=(len(starts) - 1, num_columns), check_invariants=False)
