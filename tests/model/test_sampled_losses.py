"""Sampled softmax and BPR against the full softmax and the formula written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.model.losses import Targets, full_softmax_loss
from components.model.sampled_losses import Negatives, NegativeSampler, bpr_loss, sampled_softmax_loss

NUM_USERS, NUM_ITEMS, DIM = 5, 9, 3


@pytest.fixture
def targets() -> Targets:
    """User 1 took nothing, user 3 the same item twice; weights differ."""
    return Targets(
        torch.tensor([0, 2, 2, 3, 5, 6]), torch.tensor([0, 8, 4, 7, 7, 2]), torch.tensor([0.1, 0.2, 0.3, 0.1, 0.1, 0.2])
    )


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    user_BD = torch.randn(NUM_USERS, DIM, generator=generator)
    target_ID = torch.randn(NUM_ITEMS, DIM, generator=generator)
    return user_BD.requires_grad_(), target_ID.requires_grad_()


def base(targets: Targets) -> Tensor:
    """Fixed logits; some items that nobody took are left out."""
    drawn = torch.randn(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(1))
    left_out = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(2)) < 0.4
    left_out[targets.user_of_entry, targets.items] = False
    return drawn.masked_fill(left_out, -torch.inf)


def sampled(user_BD: Tensor, target_ID: Tensor, targets: Targets, negatives: Negatives, base_BI: Tensor) -> Tensor:
    return sampled_softmax_loss(
        user_BD,
        target_ID,
        targets,
        negatives=negatives,
        base_of_items=lambda items: base_BI[:, items],
        base_of_pairs=lambda rows, items: base_BI[rows, items],
    )


@pytest.mark.parametrize("has_base", [False, True])
def test_with_every_item_drawn_once_it_is_the_full_softmax(has_base: bool, targets: Targets) -> None:
    base_BI = base(targets) if has_base else torch.zeros(NUM_USERS, NUM_ITEMS)
    all_items = Negatives(torch.randperm(NUM_ITEMS), torch.zeros(NUM_ITEMS))
    user_BD, target_ID = vectors()
    loss = sampled(user_BD, target_ID, targets, all_items, base_BI)
    loss.backward()
    user, target = vectors()
    full = full_softmax_loss(user, target, targets, base=lambda rows: base_BI[rows])
    full.backward()
    assert loss.item() == pytest.approx(full.item(), rel=1e-5)
    torch.testing.assert_close(user_BD.grad, user.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(target_ID.grad, target.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_over_many_draws_the_normaliser_is_that_of_all_items(power: float, targets: Targets) -> None:
    """Uncorrected draws would miss by the share of the catalogue that is drawn, or by the items' popularity."""
    sampler = NegativeSampler.of(torch.arange(NUM_ITEMS) ** 2.0, power=power)
    generator = torch.Generator().manual_seed(0)
    user_BD, target_ID = (vector.detach() for vector in vectors())
    base_BI = base(targets)
    one = Targets(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1.0]))  # user 0 took item 0
    taken = float(user_BD[0] @ target_ID[0] + base_BI[0, 0])
    estimates = []
    for _ in range(4000):
        negatives = sampler.shared(6, generator=generator)
        loss = sampled(user_BD[:1], target_ID, one, negatives, base_BI[:1])
        estimates.append(float((loss + taken).exp()))
    whole = float((user_BD[0] @ target_ID.T + base_BI[0]).exp().sum())
    assert sum(estimates) / len(estimates) == pytest.approx(whole, rel=0.03)


def test_a_target_among_the_draws_is_not_held_against_its_user(targets: Targets) -> None:
    """Item 4 is user 2's only target: drawn seven times over, it leaves nothing to be told apart."""
    one = Targets(torch.tensor([0, 1]), torch.tensor([4]), torch.tensor([1.0]))
    user_BD, target_ID = vectors()
    negatives = Negatives(torch.full((7,), 4), torch.zeros(7))
    assert sampled_softmax_loss(user_BD[:1], target_ID, one, negatives=negatives).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_items_are_drawn_as_often_as_their_popularity_says(power: float) -> None:
    popularity = torch.tensor([0.0, 3.0, 15.0])
    expected = (popularity + 1) ** power
    expected = expected / expected.sum()
    sampler = NegativeSampler.of(popularity, power=power)
    drawn = sampler.shared(30_000, generator=torch.Generator().manual_seed(0))
    frequency = torch.bincount(drawn.items, minlength=3) / 30_000
    torch.testing.assert_close(frequency, expected, atol=0.01, rtol=0)
    item, log_expected = drawn.items[0], drawn.log_expected[0]
    assert log_expected.exp().item() == pytest.approx(30_000 * expected[item].item(), rel=1e-4)


def test_bpr_is_the_mean_log_likelihood_of_the_right_order(targets: Targets) -> None:
    """Draws that the user took (item 8 of user 0) or that the base leaves out count nothing."""
    base_BI = torch.randn(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(1))
    base_BI[2, 1] = -torch.inf
    negatives_MK = torch.tensor([[1, 8], [1, 2], [1, 3], [0, 1], [0, 1], [5, 5]])
    user_BD, target_ID = vectors()
    loss = bpr_loss(
        user_BD, target_ID, targets, negatives_MK=negatives_MK, base_of_pairs=lambda rows, items: base_BI[rows, items]
    )
    scores = (user_BD @ target_ID.T).detach() + base_BI
    expected = 0.0
    for entry, (row, item, weight) in enumerate(
        zip(targets.user_of_entry.tolist(), targets.items.tolist(), targets.weights.tolist(), strict=True)
    ):
        for drawn in negatives_MK[entry].tolist():
            if (row, drawn) in {(0, 8), (2, 1)}:
                continue
            expected -= weight / 2 * float(F.logsigmoid(scores[row, item] - scores[row, drawn]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert target_ID.grad is not None
    assert torch.isfinite(target_ID.grad).all()
    assert target_ID.grad[6].tolist() == [0, 0, 0]  # neither taken nor drawn
