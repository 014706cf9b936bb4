"""The sparse product under every encoder."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from components.model.propagation import SparseMatrix, TwoHop, propagate
from components.train.repeatable import repeatable

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def matrix() -> sp.csr_matrix:
    """5 rows, 7 columns; the first row and the last column are empty."""
    dense = np.random.default_rng(0).normal(size=(5, 7)) * (np.random.default_rng(1).random((5, 7)) < 0.4)
    dense[0], dense[:, 6] = 0, 0
    return sp.csr_matrix(dense.astype(np.float32))


def test_the_product_is_that_of_the_dense_matrix(matrix: sp.csr_matrix) -> None:
    features_CD = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(matrix.toarray()) @ features_CD
    torch.testing.assert_close(propagate(SparseMatrix.from_scipy(matrix), features_CD), expected)
    assert SparseMatrix.from_scipy(matrix).shape == (5, 7)


def test_the_gradient_is_that_of_the_dense_matrix(matrix: sp.csr_matrix) -> None:
    features_CD = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    sparse = SparseMatrix.from_scipy(matrix)
    assert torch.autograd.gradcheck(lambda dense: propagate(sparse, dense), (features_CD,))


def test_a_matrix_without_entries_gives_zeros_and_a_gradient() -> None:
    features_CD = torch.ones(4, 2, requires_grad=True)
    out = propagate(SparseMatrix.from_scipy(sp.csr_matrix((3, 4), dtype=np.float32)), features_CD)
    out.sum().backward()
    assert out.tolist() == [[0, 0]] * 3
    assert features_CD.grad is not None
    assert features_CD.grad.tolist() == [[0, 0]] * 4


def test_a_two_hop_relation_is_the_product_of_its_matrices() -> None:
    rng = np.random.default_rng(3)
    gather, spread = (
        sp.random(rows, cols, density=0.4, format="csr", dtype=np.float32, random_state=rng)
        for rows, cols in ((4, 7), (7, 4))
    )
    relation = TwoHop(SparseMatrix.from_scipy(gather), SparseMatrix.from_scipy(spread))
    dense_ID = torch.randn(7, 3)
    torch.testing.assert_close(propagate(relation, dense_ID), torch.from_numpy((spread @ gather) @ dense_ID.numpy()))
    assert relation.shape == (7, 7)


@pytest.mark.parametrize("device", DEVICES)
def test_sums_keep_one_order_where_equal_bits_are_asked_for(device: str) -> None:
    """Rows of very unequal lengths: a fast kernel cuts the long ones, and adds the parts as they come."""
    rng = np.random.default_rng(4)
    rows = np.repeat(np.arange(2000), np.minimum((rng.pareto(1.2, 2000) * 10).astype(int) + 1, 2000))
    entries = rng.random(len(rows), dtype=np.float32), (rows, rng.integers(0, 2000, len(rows)))
    relation = SparseMatrix.from_scipy(sp.csr_matrix(entries, shape=(2000, 2000))).to(torch.device(device))
    dense_CD = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()

    def both_ways() -> torch.Tensor:
        out_RD = propagate(relation, dense_CD)
        return torch.cat([out_RD, *torch.autograd.grad(out_RD.square().sum(), dense_CD)])

    with repeatable():
        first = both_ways()
        assert all(torch.equal(both_ways(), first) for _ in range(5))
