"""One step's users with everything that chance decides, and the loss of any part of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from components.core.sections import LossName
from components.model.histories import Histories
from components.model.losses import Targets, full_softmax_loss
from components.model.rating_losses import Ratings, rating_cross_entropy_loss, squared_error_loss
from components.model.sampled_losses import Negatives, NegativeSampler, bpr_loss, sampled_softmax_loss
from components.train.windows import TrainingWindow, softmax_targets

RATING_LOSSES = ("mse", "cross_entropy")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Users of one window. Weights of its targets or ratings sum to 1, so losses of its parts sum to the batch's."""

    window: TrainingWindow
    base_BC: Tensor | None  # base logits of all users of the window, or one row for each of them
    rows: Tensor  # (b,) users, places in the window
    histories: Histories  # what was not hidden of them
    has_id_I: Tensor  # items that keep their id vector in this step
    targets: Targets
    ratings: Ratings | None = None
    negatives: Negatives | None = None  # sampled softmax
    negatives_MK: Tensor | None = None  # BPR
    view_seed: int | None = None  # of the two views that the self-supervised term compares
    factor: float = 1.0  # what the loss is multiplied by, where half precision would lose small gradients

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, users: slice) -> Batch:
        """Some of its users, their weights unchanged."""
        entries = _entries(self.targets.indptr, users)
        ratings = self.ratings
        return replace(
            self,
            rows=self.rows[users],
            histories=self.histories.rows(users),
            targets=Targets(
                _span(self.targets.indptr, users), self.targets.items[entries], self.targets.weights[entries]
            ),
            ratings=None if ratings is None else _some_ratings(ratings, users),
            negatives_MK=None if self.negatives_MK is None else self.negatives_MK[entries],
        )

    def scaled(self, factor: float) -> Batch:
        """The same batch, whose loss and gradients are `factor` times as large, from the innermost product on."""
        targets = replace(self.targets, weights=self.targets.weights * factor)
        ratings = None if self.ratings is None else replace(self.ratings, weights=self.ratings.weights * factor)
        return replace(self, targets=targets, ratings=ratings, factor=self.factor * factor)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How the users of a batch meet chance."""

    loss: LossName  # never 'auto'
    history_dropout: float
    id_dropout: float
    num_negatives: int
    draws_views: bool

    def batch(
        self,
        window: TrainingWindow,
        base_BC: Tensor | None,
        rows: Tensor,
        *,
        sampler: NegativeSampler | None,
        generator: torch.Generator,
    ) -> Batch:
        """`rows` (b,) users of the window. All draws are made on the CPU, so that devices agree."""
        device = window.item_degree_I.device
        rows = rows.to(device)
        # Items lose their id vector at random, so that content learns to stand alone for cold ones.
        kept_id = torch.rand(len(window.has_id_I), generator=generator) >= self.id_dropout
        histories = window.histories.rows(rows)
        kept = torch.rand(len(histories.items), generator=generator) >= self.history_dropout
        targets = softmax_targets(window.new_targets.rows(rows))
        batch = Batch(
            window=window,
            base_BC=base_BC,
            rows=rows,
            histories=histories.keep(kept.to(device)),
            has_id_I=window.has_id_I & kept_id.to(device),
            targets=targets,
        )
        if self.loss == "sampled_softmax":
            assert sampler is not None
            drawn = sampler.shared(self.num_negatives, generator=generator)
            batch = replace(batch, negatives=Negatives(drawn.items.to(device), drawn.log_expected.to(device)))
        if self.loss == "bpr":
            assert sampler is not None
            drawn_MK = sampler.for_entries(len(targets.items), self.num_negatives, generator=generator)
            batch = replace(batch, negatives_MK=drawn_MK.to(device))
        if self.loss in RATING_LOSSES:
            batch = replace(batch, ratings=_batch_ratings(window, rows))
        if self.draws_views:
            batch = replace(batch, view_seed=int(torch.randint(2**31, (), generator=generator)))
        return batch


def part_loss(
    loss: LossName,
    user_bD: Tensor,
    target_CD: Tensor,
    part: Batch,
    *,
    temperature: float,
    matmul_dtype: torch.dtype,
) -> Tensor:
    """-> scalar. Unit vectors of the part's users and of the items that compete."""
    base_BC = part.base_BC
    # One row of base logits is every user's.
    rows = part.rows if base_BC is None or len(base_BC) > 1 else torch.zeros_like(part.rows)

    def base_of_pairs(row_M: Tensor, item_M: Tensor) -> Tensor:
        assert base_BC is not None
        return base_BC[rows[row_M], item_M]

    scaled_bD = user_bD / temperature
    if loss == "full_softmax" and base_BC is not None and len(base_BC) == 1:
        # The same for every user: one more column of the product instead of a matrix to add. Halfway between its ends
        # it is smallest, so that the narrow type keeps most of it.
        shifted_C1 = (base_BC[0].float() - (base_BC.max() + base_BC.min()).float() / 2)[:, None]
        scaled_bD, target_CD = F.pad(scaled_bD, (0, 1), value=1.0), torch.cat([target_CD, shifted_C1], dim=1)
        base_BC = None
    if loss == "full_softmax":
        base = None if base_BC is None else lambda chunk: base_BC[rows[chunk]].float()
        return full_softmax_loss(scaled_bD, target_CD, part.targets, base=base, matmul_dtype=matmul_dtype)
    if loss == "sampled_softmax":
        assert part.negatives is not None
        return sampled_softmax_loss(
            scaled_bD,
            target_CD,
            part.targets,
            negatives=part.negatives,
            base_of_items=None if base_BC is None else lambda items: base_BC[rows[:, None], items],
            base_of_pairs=None if base_BC is None else base_of_pairs,
            matmul_dtype=matmul_dtype,
        )
    if loss == "bpr":
        assert part.negatives_MK is not None
        return bpr_loss(
            scaled_bD,
            target_CD,
            part.targets,
            negatives_MK=part.negatives_MK,
            base_of_pairs=None if base_BC is None else base_of_pairs,
        )
    assert part.ratings is not None
    if loss == "mse":
        return squared_error_loss(user_bD, target_CD, part.ratings)
    return rating_cross_entropy_loss(scaled_bD, target_CD, part.ratings)


def _batch_ratings(window: TrainingWindow, rows: Tensor) -> Ratings:
    assert window.ratings is not None
    given = window.ratings.rows(rows)
    position = window.item_positions[given.items]
    kept = given.keep(position >= 0)
    count = max(len(kept.items), 1)
    return Ratings(
        kept.indptr, window.item_positions[kept.items], kept.weights, torch.full_like(kept.weights, 1 / count)
    )


def _some_ratings(ratings: Ratings, users: slice) -> Ratings:
    entries = _entries(ratings.indptr, users)
    return Ratings(
        _span(ratings.indptr, users), ratings.items[entries], ratings.values[entries], ratings.weights[entries]
    )


def _span(indptr: Tensor, users: slice) -> Tensor:
    """`indptr` of some users' own entries."""
    span = indptr[users.start : users.stop + 1]
    return span - span[0]


def _entries(indptr: Tensor, users: slice) -> slice:
    return slice(int(indptr[users.start]), int(indptr[users.stop]))
