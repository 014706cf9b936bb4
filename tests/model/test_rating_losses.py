"""Losses for explicit ratings, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from components.model.rating_losses import Ratings, rating_cross_entropy_loss, squared_error_loss

# User 0 gave item 1 the best rating, user 1 gave item 0 the worst and item 1 a middling one.
RATINGS = Ratings(
    torch.tensor([0, 1, 3]), torch.tensor([1, 0, 1]), torch.tensor([1.0, 0.0, 0.5]), torch.tensor([0.5, 0.25, 0.25])
)
USERS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
ITEMS = torch.tensor([[0.0, 1.0], [0.6, 0.8]])


def test_the_squared_error_is_between_the_rating_and_the_cosine_on_its_scale() -> None:
    errors = [(1 - 0.8) ** 2, (0 - 1.0) ** 2, (0.5 - 0.9) ** 2]
    expected = 0.5 * errors[0] + 0.25 * errors[1] + 0.25 * errors[2]
    assert squared_error_loss(USERS, ITEMS, RATINGS).item() == pytest.approx(expected)


def test_cross_entropy_takes_the_rating_for_a_probability() -> None:
    def entropy(rating: float, logit: float) -> float:
        liked = 1 / (1 + math.exp(-logit))
        return -rating * math.log(liked) - (1 - rating) * math.log(1 - liked)

    expected = 0.5 * entropy(1, 3 * 0.6) + 0.25 * entropy(0, 3 * 1.0) + 0.25 * entropy(0.5, 3 * 0.8)
    assert rating_cross_entropy_loss(3 * USERS, ITEMS, RATINGS).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss_of", [squared_error_loss, rating_cross_entropy_loss])
def test_items_that_nobody_rated_are_not_moved(loss_of: object) -> None:
    items = torch.cat([ITEMS, torch.ones(1, 2)]).requires_grad_()
    loss_of(USERS, items, RATINGS).backward()  # type: ignore[operator]
    assert items.grad is not None
    assert items.grad[2].tolist() == [0, 0]
    assert items.grad[0].abs().sum() > 0
