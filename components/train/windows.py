"""A training window: what was known at its start, and what each user then took that was new to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from components.model.encoders import ItemGraph
from components.model.histories import Histories
from components.model.losses import Targets
from components.model.terms import CountedTerms


@dataclass(frozen=True, kw_only=True)
class TrainingWindow:
    """Inputs of B users over I items, all from before the window; targets from inside it."""

    histories: Histories
    statistics_BF: Tensor  # standardised, nan where unknown
    graph: ItemGraph
    item_degree_I: Tensor
    has_id_I: Tensor  # (I,) bool: enough users at the window's start to learn an id vector
    counted: CountedTerms
    candidates_C: Tensor  # (C,) items that compete
    targets: Histories  # (B rows) items of I taken in the window; weights and ages unused
    targets_may_be_seen: bool = False  # a log without times: what a history hides is told from what it shows
    ratings: Histories | None = None  # explicit ratings of items of I in the window, in `weights`: 0 lowest, 1 highest

    def __len__(self) -> int:
        return len(self.histories)

    def to(self, device: torch.device) -> TrainingWindow:
        """The same window on another device."""
        if device == self.item_degree_I.device:
            return self
        return replace(
            self,
            histories=self.histories.to(device),
            statistics_BF=self.statistics_BF.to(device),
            graph={name: matrix.to(device) for name, matrix in self.graph.items()},
            item_degree_I=self.item_degree_I.to(device),
            has_id_I=self.has_id_I.to(device),
            counted=self.counted.to(device),
            candidates_C=self.candidates_C.to(device),
            targets=self.targets.to(device),
            ratings=None if self.ratings is None else self.ratings.to(device),
        )

    @cached_property
    def item_positions(self) -> Tensor:
        """(I,) place of an item among the candidates, -1 where it does not compete."""
        position = torch.full_like(self.item_degree_I, -1, dtype=torch.int64)
        position[self.candidates_C] = torch.arange(len(self.candidates_C), device=position.device)
        return position

    @cached_property
    def new_targets(self) -> Histories:
        """Targets that compete and were new to the user (or may be seen), as candidate positions."""
        position = self.item_positions
        allowed = position[self.targets.items] >= 0
        if not self.targets_may_be_seen:
            num_items = len(self.item_degree_I)
            key = self.targets.user_of_entry * num_items + self.targets.items
            allowed &= ~torch.isin(key, self.histories.user_of_entry * num_items + self.histories.items)
        kept = self.targets.keep(allowed)
        return Histories(kept.indptr, position[kept.items], kept.weights, kept.ages_days)

    def seen_positions(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Row (of `rows`) and candidate position of everything these users have seen."""
        histories = self.histories.rows(rows)
        position = self.item_positions[histories.items]
        return histories.user_of_entry[position >= 0], position[position >= 0]


def softmax_targets(targets: Histories, *, power: float = 0.5) -> Targets:
    """A user's items weigh |T|^-power each: with ½, busy users count more, but not in proportion."""
    lengths = targets.lengths.clamp(min=1).float()
    weights = torch.repeat_interleave(lengths**-power, targets.lengths)
    return Targets(targets.indptr, targets.items, weights / weights.sum().clamp(min=1e-12))
