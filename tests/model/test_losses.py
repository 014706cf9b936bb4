"""The full softmax: value and hand-written gradient against torch's own cross entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.model import losses
from components.model.losses import Targets, full_softmax_loss

NUM_USERS, NUM_ITEMS, DIM = 5, 9, 3


@pytest.fixture
def targets() -> Targets:
    """User 1 took nothing, user 3 the same item twice; weights differ."""
    return Targets(
        torch.tensor([0, 2, 2, 3, 5, 6]), torch.tensor([0, 8, 4, 7, 7, 2]), torch.tensor([0.1, 0.2, 0.3, 0.1, 0.1, 0.2])
    )


def dense(targets: Targets) -> Tensor:
    row = torch.repeat_interleave(torch.arange(NUM_USERS), targets.indptr.diff())
    return torch.zeros(NUM_USERS, NUM_ITEMS).index_put_((row, targets.items), targets.weights, accumulate=True)


def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    user_BD, target_ID = (
        torch.randn(NUM_USERS, DIM, generator=generator),
        torch.randn(NUM_ITEMS, DIM, generator=generator),
    )
    return user_BD.requires_grad_(), target_ID.requires_grad_()


def base_BI(targets: Targets) -> Tensor:
    """Fixed logits; some items that nobody took are left out."""
    base = torch.randn(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(1))
    left_out = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(2)) < 0.4
    return base.masked_fill(left_out & (dense(targets) == 0), -torch.inf)


@pytest.mark.parametrize("has_base", [False, True])
@pytest.mark.parametrize("chunk_logits", [8_000_000, 2 * NUM_ITEMS, 1])
def test_value_and_gradients_are_those_of_cross_entropy(
    has_base: bool, chunk_logits: int, targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", chunk_logits)
    base = base_BI(targets) if has_base else None
    user_BD, target_ID = vectors()
    loss = full_softmax_loss(user_BD, target_ID, targets, base=None if base is None else lambda rows: base[rows])
    (3 * loss).backward()

    user, target = vectors()
    logits = user @ target.T if base is None else user @ target.T + base
    # An item that is left out has a finite stand-in here: torch's cross entropy makes 0 * -inf of it.
    expected = F.cross_entropy(logits.clamp(min=-1e9), dense(targets), reduction="sum")
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(user_BD.grad, user.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(target_ID.grad, target.grad, atol=1e-6, rtol=1e-5)


def test_chunks_hold_as_many_users_as_the_bound_allows(targets: Targets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 2 * NUM_ITEMS + 1)
    asked: list[slice] = []

    def base(rows: slice) -> Tensor:
        asked.append(rows)
        return torch.zeros(rows.stop - rows.start, NUM_ITEMS)

    full_softmax_loss(*vectors(), targets, base=base)
    assert asked == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_an_item_that_is_left_out_is_not_pushed_away(targets: Targets) -> None:
    user_BD, target_ID = vectors()
    base = torch.zeros(NUM_USERS, NUM_ITEMS)
    base[:, 6] = -torch.inf
    full_softmax_loss(user_BD, target_ID, targets, base=lambda rows: base[rows]).backward()
    assert target_ID.grad is not None
    assert target_ID.grad[6].tolist() == [0, 0, 0]
    assert target_ID.grad[5].abs().sum() > 0


def test_half_precision_products_stay_near(targets: Targets) -> None:
    user_BD, target_ID = vectors()
    exact = full_softmax_loss(user_BD, target_ID, targets).item()
    assert full_softmax_loss(user_BD, target_ID, targets, matmul_dtype=torch.bfloat16).item() == pytest.approx(
        exact, rel=0.01
    )


def test_a_user_to_whom_no_item_is_left_teaches_nothing(targets: Targets) -> None:
    """User 1 took nothing and has seen everything."""
    base = torch.zeros(NUM_USERS, NUM_ITEMS)
    base[1] = -torch.inf
    user_BD, target_ID = vectors()
    loss = full_softmax_loss(user_BD, target_ID, targets, base=lambda rows: base[rows])
    loss.backward()
    assert loss.item() == pytest.approx(full_softmax_loss(*vectors(), targets).item(), rel=1e-6)
    assert user_BD.grad is not None
    assert target_ID.grad is not None
    assert user_BD.grad[1].tolist() == [0] * DIM
    assert not torch.isnan(target_ID.grad).any()
