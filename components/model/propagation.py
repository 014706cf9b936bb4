"""Weighted sums over neighbours: the one kernel under every encoder, on any CPU and any CUDA GPU.

On CPU `embedding_bag` with per-sample weights is the fastest kernel that torch has for a sparse matrix times a tall
dense one; on CUDA it is the CSR product, whose sums however come in another order each time: where torch is asked for
deterministic algorithms, it is `embedding_bag` there too. The backward pass is the same kernel on the transposed
matrix, so no activation is kept.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

# torch says so in every process that makes one on a GPU; nobody who trains can do anything about it.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")


@dataclass(frozen=True)
class SparseMatrix:
    """A fixed (R, C) matrix in compressed rows, with its transpose for the backward pass."""

    indptr: Tensor  # (R+1,) int64
    indices: Tensor  # (E,) int64
    values: Tensor  # (E,) float32
    indptr_t: Tensor  # (C+1,)
    indices_t: Tensor
    values_t: Tensor

    @classmethod
    def from_scipy(cls, matrix: sp.csr_matrix) -> SparseMatrix:
        rows, cols = sp.csr_matrix(matrix), sp.csr_matrix(matrix.T)
        parts = [
            torch.from_numpy(np.ascontiguousarray(array))
            for one in (rows, cols)
            for array in (one.indptr.astype(np.int64), one.indices.astype(np.int64), one.data.astype(np.float32))
        ]
        return cls(*parts)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, len(self.indptr_t) - 1

    @cached_property
    def row_of_entry(self) -> Tensor:
        """(E,) int64."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.indptr.device), self.indptr.diff())

    @cached_property
    def transposed_order(self) -> Tensor:
        """(E,) int64: which entry stands where in the transpose, for values that are not fixed."""
        return torch.argsort(self.indices, stable=True)

    def to(self, device: torch.device) -> SparseMatrix:
        parts = (self.indptr, self.indices, self.values, self.indptr_t, self.indices_t, self.values_t)
        return SparseMatrix(*(part.to(device) for part in parts))


@dataclass(frozen=True)
class TwoHop:
    """Items that meet in nodes of another kind (users, attribute values, entities): item <- node <- item.

    The product of its two matrices is never written out: a category of 5,000 items would alone give 25 M entries.
    """

    gather: SparseMatrix  # (N, I) row-normalised: what a node hears from its items
    spread: SparseMatrix  # (I, N) row-normalised: what an item hears from its nodes
    features_NF: Tensor | None = None  # standardised features of the nodes, nan where unknown (users of `user_item`)

    @property
    def shape(self) -> tuple[int, int]:
        return self.spread.shape[0], self.gather.shape[1]

    def to(self, device: torch.device) -> TwoHop:
        features = None if self.features_NF is None else self.features_NF.to(device)
        return TwoHop(self.gather.to(device), self.spread.to(device), features)


Relation = SparseMatrix | TwoHop


def propagate(relation: Relation, dense_CD: Tensor) -> Tensor:
    """(R, C) sparse times (C, D) dense -> (R, D), differentiable in the dense factor."""
    if isinstance(relation, TwoHop):
        return propagate(relation.spread, propagate(relation.gather, dense_CD))
    product: Tensor = _Propagate.apply(dense_CD, relation)  # type: ignore[no-untyped-call]  # torch types apply so
    return product


class _Propagate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense_CD: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return csr_product(matrix.indptr, matrix.indices, matrix.values, dense_CD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        matrix: SparseMatrix = ctx.matrix
        return csr_product(matrix.indptr_t, matrix.indices_t, matrix.values_t, grads[0]), None


def csr_product(indptr: Tensor, indices: Tensor, values: Tensor, dense_CD: Tensor) -> Tensor:
    """Compressed rows (R, C) times (C, D) -> (R, D), outside of autograd."""
    if dense_CD.is_cuda and not torch.are_deterministic_algorithms_enabled():
        size = (len(indptr) - 1, dense_CD.shape[0])
        return torch.sparse_csr_tensor(indptr, indices, values, size=size, check_invariants=False) @ dense_CD
    if len(indices) == 0:
        return dense_CD.new_zeros(len(indptr) - 1, dense_CD.shape[1])
    return F.embedding_bag(
        indices,
        dense_CD.contiguous(),
        indptr,
        mode="sum",
        per_sample_weights=values.to(dense_CD.dtype),
        include_last_offset=True,
    )
