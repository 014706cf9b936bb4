"""Products edge by edge: what attention over a fixed graph is made of, in memory of O(edges), on any CPU and CUDA GPU.

`edge_dot` and `edge_sum` are each other's gradients, and both are one pass over the edges: no (E, D) array is made.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from components.model.propagation import SparseMatrix, csr_product


def edge_dot(matrix: SparseMatrix, left_RD: Tensor, right_CD: Tensor) -> Tensor:
    """-> (E,): the dot product of each entry's row in `left_RD` and column in `right_CD`; differentiable in both."""
    products: Tensor = _EdgeDot.apply(left_RD, right_CD, matrix)  # type: ignore[no-untyped-call]  # torch types apply so
    return products


def edge_sum(matrix: SparseMatrix, values_E: Tensor, dense_CD: Tensor) -> Tensor:
    """The product of the matrix with its values replaced -> (R, D); differentiable in the values and in `dense_CD`."""
    total: Tensor = _EdgeSum.apply(values_E, dense_CD, matrix)  # type: ignore[no-untyped-call]  # torch types apply so
    return total


def edge_softmax(matrix: SparseMatrix, logits_E: Tensor) -> Tensor:
    """(E,) -> (E,): w_ij exp(logit_ij), scaled so that a row adds up to what its w do.

    Logits of one number a row leave the matrix's own values as they are.
    """
    row_E, num_rows = matrix.row_of_entry, matrix.shape[0]
    with torch.no_grad():
        highest_R = logits_E.new_full((num_rows,), -torch.inf).scatter_reduce(0, row_E, logits_E, "amax")
    weight_E = matrix.values.to(logits_E.dtype)
    raised_E = weight_E * torch.exp(logits_E - highest_R[row_E])
    zeros_R = logits_E.new_zeros(num_rows)
    scale_R = zeros_R.index_add(0, row_E, weight_E) / zeros_R.index_add(0, row_E, raised_E).clamp(min=1e-30)
    return raised_E * scale_R[row_E]


class _EdgeDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left_RD: Tensor, right_CD: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(left_RD, right_CD)
        return _sampled_product(matrix, left_RD, right_CD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        left_RD, right_CD = ctx.saved_tensors
        matrix: SparseMatrix = ctx.matrix
        grad_left = csr_product(matrix.indptr, matrix.indices, grads[0], right_CD)
        return grad_left, _transposed_product(matrix, grads[0], left_RD), None


class _EdgeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_E: Tensor, dense_CD: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(values_E, dense_CD)
        return csr_product(matrix.indptr, matrix.indices, values_E, dense_CD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        values_E, dense_CD = ctx.saved_tensors
        matrix: SparseMatrix = ctx.matrix
        return _sampled_product(matrix, grads[0], dense_CD), _transposed_product(matrix, values_E, grads[0]), None


def _transposed_product(matrix: SparseMatrix, values_E: Tensor, dense_RD: Tensor) -> Tensor:
    return csr_product(matrix.indptr_t, matrix.indices_t, values_E[matrix.transposed_order], dense_RD)


def _sampled_product(matrix: SparseMatrix, left_RD: Tensor, right_CD: Tensor) -> Tensor:
    """(E,) entries of left rightᵀ at the matrix's places."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse")  # torch calls its CSR tensors beta
        places = torch.sparse_csr_tensor(
            matrix.indptr,
            matrix.indices,
            torch.zeros_like(matrix.values, dtype=left_RD.dtype),
            size=matrix.shape,
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(places, left_RD, right_CD.T, beta=0).values()
