"""The score of an item for a user: one definition, used by evaluation, serving, index recall and every benchmark.

    score(u, i) = Σ_t w_t term_t(u, i)

Terms: the learned similarity cos(u, i) / τ, and the counted terms of components/model/terms.py. The weights are learnt
on the period after the training window, with every input from before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from components.model.histories import Histories
from components.model.terms import CountedTerms
from components.model.user_vector import StatisticsScaling, UserVector

SIMILARITY = "similarity"
REPEAT = "repeat"


@dataclass(frozen=True, kw_only=True)
class ScoreWeights:
    """What each term counts."""

    terms: Mapping[str, float]
    """For items new to the user."""
    repeat: float = 0.0
    """Of the user's own frequency, when items seen before compete too."""
    repeat_scale: float = 1.0
    """What all other terms are multiplied by when items seen before compete too."""


class Scorer:
    """Scores every item for a batch of users."""

    def __init__(
        self,
        *,
        history_ID: Tensor,
        target_ID: Tensor,
        user_vector: UserVector,
        scaling: StatisticsScaling,
        temperature: float,
        counted: CountedTerms,
        weights: ScoreWeights,
    ) -> None:
        self.history_ID = history_ID
        self.target_ID = target_ID
        self.user_vector = user_vector.eval()
        self.scaling = scaling
        self.temperature = temperature
        self.counted = counted
        self.weights = weights

    def with_weights(self, weights: ScoreWeights) -> Scorer:
        """The same terms, weighed otherwise."""
        return Scorer(
            history_ID=self.history_ID,
            target_ID=self.target_ID,
            user_vector=self.user_vector,
            scaling=self.scaling,
            temperature=self.temperature,
            counted=self.counted,
            weights=weights,
        )

    @property
    def num_items(self) -> int:
        return len(self.target_ID)

    @property
    def term_names(self) -> tuple[str, ...]:
        return (SIMILARITY, *self.counted.names, REPEAT)

    @torch.no_grad()
    def user_vectors(self, histories: Histories, statistics_BF: Tensor) -> Tensor:
        """Raw statistics (B, F), nan where unknown -> (B, D) unit vectors."""
        vectors: Tensor = self.user_vector(histories, self.scaling.apply(statistics_BF), self.history_ID)
        return vectors

    @torch.no_grad()
    def terms(self, histories: Histories, statistics_BF: Tensor, *, include_seen: bool = False) -> dict[str, Tensor]:
        """Weighted terms, each (B, I) or (1, I); their sum is the score."""
        scale = self.weights.repeat_scale if include_seen else 1.0
        raw = self.unweighted_terms(histories, statistics_BF)
        terms = {name: term * (scale * self.weights.terms.get(name, 0.0)) for name, term in raw.items()}
        if include_seen:
            terms[REPEAT] = self.counted.repeat(histories) * self.weights.repeat
        return terms

    @torch.no_grad()
    def score(self, histories: Histories, statistics_BF: Tensor, *, include_seen: bool = False) -> Tensor:
        """-> (B, I). Without `include_seen` the scores are for items new to the user; mask the others in top_k."""
        scale = self.weights.repeat_scale if include_seen else 1.0
        total_BI = torch.zeros(len(histories), self.num_items, device=self.target_ID.device)
        for name, term in self.unweighted_terms(histories, statistics_BF).items():
            total_BI.add_(term, alpha=scale * self.weights.terms.get(name, 0.0))
        if include_seen:
            total_BI.add_(self.counted.repeat(histories), alpha=self.weights.repeat)
        return total_BI

    @torch.no_grad()
    def unweighted_terms(self, histories: Histories, statistics_BF: Tensor) -> dict[str, Tensor]:
        """Terms before their weights: what the weights are learnt from."""
        similarity_BI = self.user_vectors(histories, statistics_BF) @ self.target_ID.T / self.temperature
        return {SIMILARITY: similarity_BI, **self.counted.compute(histories)}
