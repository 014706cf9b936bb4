"""Products edge by edge, against dense matrices and numerical gradients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from components.model.edge_products import edge_dot, edge_softmax, edge_sum
from components.model.propagation import SparseMatrix


@pytest.fixture
def places() -> sp.csr_matrix:
    """5 rows, 7 columns; the first row and the last column are empty."""
    dense = np.random.default_rng(0).random((5, 7)) * (np.random.default_rng(1).random((5, 7)) < 0.5)
    dense[0], dense[:, 6] = 0, 0
    return sp.csr_matrix(dense.astype(np.float32))


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def test_edge_dot_is_the_dense_product_at_the_edges(places: sp.csr_matrix) -> None:
    matrix, coo = SparseMatrix.from_scipy(places), places.tocoo()
    left_RD, right_CD = drawn(5, 3, seed=0), drawn(7, 3, seed=1)
    expected = (left_RD @ right_CD.T)[coo.row, coo.col]
    torch.testing.assert_close(edge_dot(matrix, left_RD, right_CD), expected)
    assert torch.autograd.gradcheck(lambda left, right: edge_dot(matrix, left, right), (left_RD, right_CD))


def test_edge_sum_is_the_product_with_other_values(places: sp.csr_matrix) -> None:
    matrix, coo = SparseMatrix.from_scipy(places), places.tocoo()
    values_E, dense_CD = drawn(places.nnz, seed=2), drawn(7, 3, seed=3)
    replaced = torch.zeros(5, 7, dtype=torch.float64)
    replaced[coo.row, coo.col] = values_E.detach()
    torch.testing.assert_close(edge_sum(matrix, values_E, dense_CD), replaced @ dense_CD)
    assert torch.autograd.gradcheck(lambda values, dense: edge_sum(matrix, values, dense), (values_E, dense_CD))


def test_a_softmax_over_edges_shares_out_what_the_row_weighs(places: sp.csr_matrix) -> None:
    matrix, coo = SparseMatrix.from_scipy(places), places.tocoo()
    logits_E = drawn(places.nnz, seed=4)
    raised = torch.zeros(5, 7, dtype=torch.float64)
    raised[coo.row, coo.col] = torch.from_numpy(coo.data).double() * logits_E.detach().exp()
    total_R = torch.from_numpy(np.asarray(places.sum(axis=1)).ravel()).double()
    expected = raised / raised.sum(dim=1, keepdim=True).clamp(min=1e-9) * total_R[:, None]
    torch.testing.assert_close(edge_softmax(matrix, logits_E), expected[coo.row, coo.col], atol=1e-7, rtol=1e-6)
    assert torch.autograd.gradcheck(lambda logits: edge_softmax(matrix, logits), (logits_E,))
    level = torch.full((places.nnz,), 300.0)  # alike for all, and too high for exp
    torch.testing.assert_close(edge_softmax(matrix, level), matrix.values)


def test_a_matrix_without_edges_gives_nothing_and_zeros() -> None:
    matrix = SparseMatrix.from_scipy(sp.csr_matrix((5, 7), dtype=np.float32))
    none = edge_softmax(matrix, edge_dot(matrix, torch.ones(5, 3), torch.ones(7, 3)))
    assert none.shape == (0,)
    assert edge_sum(matrix, none, torch.ones(7, 3)).tolist() == [[0, 0, 0]] * 5
