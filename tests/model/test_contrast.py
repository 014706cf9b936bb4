"""The self-supervised term and its two kinds of views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from components.model.contrast import EdgeDropper, info_nce_loss, noise
from components.model.propagation import SparseMatrix, TwoHop, propagate


def test_views_that_tell_items_apart_cost_little_and_equal_ones_the_log_of_their_number() -> None:
    apart = torch.eye(4)
    assert info_nce_loss(apart, apart, temperature=0.5).item() == pytest.approx(math.log(1 + 3 * math.exp(-2)))
    alike = torch.ones(4, 4) / 2
    assert info_nce_loss(alike, alike, temperature=0.5).item() == pytest.approx(math.log(4))


def test_noise_turns_each_row_by_its_strength_within_its_orthant() -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 50)[:, None]
    noisy = noise(strength=0.1, generator=torch.Generator().manual_seed(1))(rows)
    assert ((noisy - rows).norm(dim=1) / rows.norm(dim=1)).tolist() == pytest.approx([0.1] * 50, rel=1e-4)
    assert (noisy.sign() == rows.sign()).all()
    again = noise(strength=0.1, generator=torch.Generator().manual_seed(1))(rows)
    assert torch.equal(noisy, again)


def random_matrix(rows: int, columns: int, seed: int) -> sp.csr_matrix:
    return sp.random(rows, columns, density=0.3, format="csr", dtype=np.float32, random_state=seed)


def dense(matrix: SparseMatrix) -> torch.Tensor:
    return propagate(matrix, torch.eye(matrix.shape[1]))


def test_dropped_edges_are_gone_and_the_others_grow_forward_and_backward_alike() -> None:
    matrix = SparseMatrix.from_scipy(random_matrix(40, 30, 0))
    (dropped,) = EdgeDropper({"met": matrix}).draw(share=0.25, generator=torch.Generator().manual_seed(0)).values()
    assert isinstance(dropped, SparseMatrix)
    before, after = dense(matrix), dense(dropped)
    kept = after != 0
    torch.testing.assert_close(after[kept], before[kept] / 0.75)
    assert 0.6 < kept.sum() / (before != 0).sum() < 0.9
    given = torch.randn(30, 4).requires_grad_()
    wanted = torch.randn(40, 4)
    (propagate(dropped, given) * wanted).sum().backward()
    torch.testing.assert_close(given.grad, after.T @ wanted)


def test_a_relation_over_other_nodes_drops_edges_of_both_halves() -> None:
    two = TwoHop(
        SparseMatrix.from_scipy(random_matrix(8, 30, 1)), SparseMatrix.from_scipy(random_matrix(30, 8, 2)), None
    )
    (dropped,) = EdgeDropper({"in": two}).draw(share=0.5, generator=torch.Generator().manual_seed(0)).values()
    assert isinstance(dropped, TwoHop)
    for before, after in ((two.gather, dropped.gather), (two.spread, dropped.spread)):
        share = (after.values != 0).float().mean()
        assert 0.3 < share < 0.7
        assert after.values.sum().item() == pytest.approx(after.values_t.sum().item(), rel=1e-5)
        assert (before.values[after.values != 0] * 2).tolist() == pytest.approx(
            after.values[after.values != 0].tolist()
        )


def test_the_same_item_is_found_again_in_a_noisy_view() -> None:
    rows = F.normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    perturb = noise(strength=0.1, generator=torch.Generator().manual_seed(1))
    same = info_nce_loss(F.normalize(perturb(rows), dim=1), F.normalize(perturb(rows), dim=1), temperature=0.1)
    other = info_nce_loss(F.normalize(perturb(rows), dim=1), rows.roll(1, dims=0), temperature=0.1)
    assert same.item() < 0.2 < other.item()
