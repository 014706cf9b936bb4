"""The user vector: the one piece of code that training, evaluation and serving share.

A user has no trained row. A new user, a new event and a new item are therefore served at once, without retraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.sections import UserPooling
from components.model.histories import Histories


class UserVector(nn.Module):
    """Pooled history, joined with the user's standardised statistics, read out by a dense layer."""

    item_degree_I: Tensor

    def __init__(
        self,
        *,
        num_items: int,
        dim: int,
        num_statistics: int,
        half_life_days: float | None,
        pooling: UserPooling = "decayed",
    ) -> None:
        """`half_life_days` None: every item of a history counts the same, however old."""
        super().__init__()
        self.half_life_days = half_life_days
        self.pooling: UserPooling = pooling
        if pooling == "attention":
            self.attention = HistoryAttention(dim)
        self.readout = nn.Sequential(nn.Linear(dim + num_statistics, dim), nn.ReLU(), nn.Linear(dim, dim))
        # Users of each item at the graph's cutoff: a popular item says less of a taste.
        self.register_buffer("item_degree_I", torch.ones(num_items), persistent=True)

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """A readout that adds nothing yet: the user vector starts as the pooled history."""
        first, last = self.readout[0], self.readout[-1]
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        first.weight.normal_(std=first.in_features**-0.5, generator=generator)
        first.bias.zero_()
        last.weight.zero_()
        last.bias.zero_()
        if self.pooling == "attention":
            for weight in self.attention.parameters():
                weight.zero_()

    def forward(self, histories: Histories, statistics_BF: Tensor, history_ID: Tensor) -> Tensor:
        """-> (B, D) unit vectors. Where a user has no history, the statistics alone speak."""
        strengths_N = histories.strengths(half_life_days=self.half_life_days)
        strengths_N = strengths_N * self.item_degree_I[histories.items].clamp(min=1).rsqrt()
        pooled_BD = F.normalize(_pooled(histories, strengths_N, history_ID), dim=1)
        if self.pooling == "attention":
            strengths_N = strengths_N * self.attention(histories, pooled_BD, history_ID)
            pooled_BD = F.normalize(_pooled(histories, strengths_N, history_ID), dim=1)
        joined = torch.cat([pooled_BD, torch.nan_to_num(statistics_BF)], dim=1)
        return F.normalize(pooled_BD + self.readout(joined), dim=1)


class HistoryAttention(nn.Module):
    """What an entry of a history counts beside its strength: exp of a learnt logit. It starts as 1 for every entry.

        logit_ui = a·ĥ_i + b·ĥ_i·p̂_u + c_1 log(1 + age in days) + c_2 log(event weight) + c_3 [weight ≥ 1]

    ĥ are unit vectors, p̂_u the user's history as pooled without attention. Unit length makes the sum over the history
    a softmax's average, whatever the logits' level.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.item_D = nn.Parameter(torch.zeros(dim))
        self.likeness = nn.Parameter(torch.zeros(()))
        self.event_3 = nn.Parameter(torch.zeros(3))

    def forward(self, histories: Histories, pooled_BD: Tensor, history_ID: Tensor) -> Tensor:
        """-> (N,), 1 at most for the entry of a user that counts most."""
        unit_ID = F.normalize(history_ID, dim=1)
        user_N = histories.user_of_entry
        likeness_N = (unit_ID[histories.items] * pooled_BD[user_N]).sum(dim=1)
        log_age_N = histories.ages_days.clamp(min=0).log1p()
        log_weight_N = histories.weights.clamp(min=1e-3).log()
        event_N3 = torch.stack([log_age_N, log_weight_N, (histories.weights >= 1).float()], dim=1)
        logit_N = (unit_ID @ self.item_D)[histories.items] + self.likeness * likeness_N + event_N3 @ self.event_3
        with torch.no_grad():
            highest_B = logit_N.new_full((len(histories),), -torch.inf).scatter_reduce(0, user_N, logit_N, "amax")
        return torch.exp(logit_N - highest_B[user_N])


def _pooled(histories: Histories, strengths_N: Tensor, history_ID: Tensor) -> Tensor:
    """Σ strength · item vector of each history -> (B, D)."""
    return F.embedding_bag(
        histories.items,
        history_ID,
        histories.indptr,
        mode="sum",
        per_sample_weights=strengths_N.to(history_ID.dtype),
        include_last_offset=True,
    )


@dataclass(frozen=True)
class StatisticsScaling:
    """Standardises user statistics: sign(x) log(1 + |x|), then mean 0 and deviation 1 over the training users."""

    names: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @classmethod
    def fit(cls, names: Sequence[str], statistics_BF: Tensor) -> StatisticsScaling:
        squashed = _squash(statistics_BF.double())
        known = ~torch.isnan(squashed)
        count = known.sum(dim=0).clamp(min=1)
        mean = torch.nan_to_num(squashed).sum(dim=0) / count
        variance = (torch.nan_to_num(squashed - mean) ** 2).sum(dim=0) / count
        deviation = variance.sqrt().clamp(min=1e-6)
        return cls(tuple(names), tuple(mean.tolist()), tuple(deviation.tolist()))

    def apply(self, statistics_BF: Tensor) -> Tensor:
        """Raw (B, F) -> standardised (B, F) float32; nan stays nan, extremes are cut at 5 deviations."""
        mean = torch.tensor(self.means, dtype=torch.float64, device=statistics_BF.device)
        deviation = torch.tensor(self.deviations, dtype=torch.float64, device=statistics_BF.device)
        return ((_squash(statistics_BF.double()) - mean) / deviation).clamp(-5, 5).float()


def _squash(values: Tensor) -> Tensor:
    return values.sign() * values.abs().log1p()
