"""Users' histories as one sparse structure: what a batch of users has done, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def row_of_entry(indptr: Tensor) -> Tensor:
    """(N,) int64: the row that each entry of compressed rows stands in."""
    return torch.repeat_interleave(torch.arange(len(indptr) - 1, device=indptr.device), indptr.diff())


@dataclass(frozen=True)
class Histories:
    """Compressed rows over B users; within a user each item stands once."""

    indptr: Tensor  # (B+1,) int64
    items: Tensor  # (N,) int64, item indices
    weights: Tensor  # (N,) float32, sum of event weights: two purchases and a view are 2.2
    ages_days: Tensor  # (N,) float32, days from the last event with the item to now

    @classmethod
    def from_lists(
        cls,
        items: Sequence[Sequence[int]],
        weights: Sequence[Sequence[float]],
        ages_days: Sequence[Sequence[float]],
    ) -> Histories:
        lengths = np.fromiter((len(row) for row in items), dtype=np.int64, count=len(items))
        return cls(
            indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
            # By numpy: torch takes twice as long to read a list.
            items=torch.from_numpy(np.array([item for row in items for item in row], dtype=np.int64)),
            weights=torch.from_numpy(np.array([weight for row in weights for weight in row], dtype=np.float32)),
            ages_days=torch.from_numpy(np.array([age for row in ages_days for age in row], dtype=np.float32)),
        )

    @classmethod
    def empty(cls, num_users: int) -> Histories:
        return cls.from_lists([[]] * num_users, [[]] * num_users, [[]] * num_users)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, distinct items a user."""
        return self.indptr[1:] - self.indptr[:-1]

    @property
    def user_of_entry(self) -> Tensor:
        """(N,) int64, the row of each entry."""
        return row_of_entry(self.indptr)

    def rows(self, selection: Tensor | slice) -> Histories:
        """Histories of the selected users, in the given order."""
        chosen = torch.arange(len(self), device=self.items.device)[selection]
        lengths = self.lengths[chosen]
        indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        offset = torch.repeat_interleave(self.indptr[chosen] - indptr[:-1], lengths)
        entries = torch.arange(int(indptr[-1]), device=self.items.device) + offset
        return Histories(indptr, self.items[entries], self.weights[entries], self.ages_days[entries])

    def keep(self, mask_N: Tensor) -> Histories:
        """Histories of the entries where the mask is true."""
        kept = torch.zeros(len(self), dtype=torch.int64, device=self.items.device)
        kept.index_add_(0, self.user_of_entry[mask_N], torch.ones_like(self.items[mask_N]))
        indptr = torch.cat([kept.new_zeros(1), kept.cumsum(0)])
        return Histories(indptr, self.items[mask_N], self.weights[mask_N], self.ages_days[mask_N])

    def strengths(self, *, half_life_days: float | None) -> Tensor:
        """(N,) float32: how much an entry counts. A purchase counts 1 however often; age halves it."""
        strength_N = self.weights.clamp(max=1.0)
        if half_life_days is None:
            return strength_N
        return strength_N * torch.exp2(-self.ages_days.clamp(min=0) / half_life_days)

    def to(self, device: torch.device) -> Histories:
        return Histories(*(part.to(device) for part in (self.indptr, self.items, self.weights, self.ages_days)))
