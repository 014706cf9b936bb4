"""Losses for explicit ratings: (user, item, rating) triples instead of what was taken.

A rating becomes y = (rating - low) / (high - low) in [0, 1]. A user who rated low is told apart from one who did not
rate: only rated pairs count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from components.model.histories import row_of_entry


@dataclass(frozen=True)
class Ratings:
    """What B users said of items, compressed rows; positions in the scored item list."""

    indptr: Tensor  # (B+1,) int64
    items: Tensor  # (M,) int64
    values: Tensor  # (M,) float32, 0 the lowest rating of the scale and 1 the highest
    weights: Tensor  # (M,) float32; the whole batch sums to 1 where the loss is a mean

    @property
    def user_of_entry(self) -> Tensor:
        """(M,) int64 row of each entry."""
        return row_of_entry(self.indptr)


def squared_error_loss(user_BD: Tensor, target_ID: Tensor, ratings: Ratings) -> Tensor:
    """-> scalar: Σ_m w_m ((1 + cos) / 2 - y_m)². `user_BD` and `target_ID` are unit vectors."""
    cosine_M = _products(user_BD, target_ID, ratings)
    return (ratings.weights * ((1 + cosine_M) / 2 - ratings.values).square()).sum()


def rating_cross_entropy_loss(user_BD: Tensor, target_ID: Tensor, ratings: Ratings) -> Tensor:
    """-> scalar: Σ_m w_m H(y_m, σ(u·t)), with the rating as the probability that the item is liked."""
    logit_M = _products(user_BD, target_ID, ratings)
    each_M = F.binary_cross_entropy_with_logits(logit_M, ratings.values, reduction="none")
    return (ratings.weights * each_M).sum()


def _products(user_BD: Tensor, target_ID: Tensor, ratings: Ratings) -> Tensor:
    return (user_BD[ratings.user_of_entry] * target_ID[ratings.items]).sum(dim=1).float()
