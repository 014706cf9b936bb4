"""The named terms of the score that are counted, not trained: filter, affinities, popularity.

Each is a log-scale (B, I) matrix, so that their weighted sum is a log-linear model of what a user takes next.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.model.attributes import UNKNOWN, ItemAttributes
from components.model.histories import Histories
from components.model.linear_filter import FilterRows

# Added to the filter's value in units of its row's root mean square: below it, differences are noise.
FILTER_FLOOR = 0.05
# Pseudo-count of the population's taste in a user's own: a history of 30 items weighs as much as the prior.
AFFINITY_PRIOR = 30.0
# Half-life of what a user's frequency of one item says of the next purchase.
REPEAT_HALF_LIFE_DAYS = 84.0
# A decayed count of this much is as good as none.
REPEAT_FLOOR = 0.05


@dataclass(frozen=True)
class Popularity:
    """Distinct users an item, ever and of late, at the cutoff."""

    ever_I: Tensor  # (I,) float32
    recent_I: Tensor  # (I,) float32


class CountedTerms:
    """Everything of the score but the learned similarity, from the state of the world at a cutoff."""

    def __init__(
        self,
        *,
        filter_rows: FilterRows,
        attributes: ItemAttributes,
        popularity: Popularity,
        half_life_days: float | None,
    ) -> None:
        self.filter_rows = filter_rows
        self.attributes = attributes
        self.popularity = popularity
        self.half_life_days = half_life_days
        self._constant = {
            "popularity": torch.log1p(popularity.ever_I)[None, :],
            "recent_popularity": torch.log1p(popularity.recent_I)[None, :],
        }
        self.priors = {name: self._prior(name) for name in attributes.affinity_names}

    def to(self, device: torch.device) -> CountedTerms:
        return CountedTerms(
            filter_rows=self.filter_rows.to(device),
            attributes=self.attributes.to(device),
            popularity=Popularity(self.popularity.ever_I.to(device), self.popularity.recent_I.to(device)),
            half_life_days=self.half_life_days,
        )

    @property
    def names(self) -> tuple[str, ...]:
        return ("filter", *(f"affinity_{name}" for name in self.attributes.affinity_names), *self._constant)

    def compute(self, histories: Histories) -> dict[str, Tensor]:
        """-> name -> (B, I), or (1, I) where it is the same for every user."""
        strengths_N = histories.strengths(half_life_days=self.half_life_days)
        terms = {"filter": self._filter(histories, strengths_N)}
        for name, prior_V in self.priors.items():
            terms[f"affinity_{name}"] = self._affinity(histories, strengths_N, name, prior_V)
        return {**terms, **self._constant}

    def repeat(self, histories: Histories) -> Tensor:
        """log of the user's own decayed count of the item, over a floor -> (B, I), 0 for items never touched."""
        out = torch.zeros(len(histories), self.filter_rows.num_items, device=histories.items.device)
        decay_N = torch.exp2(-histories.ages_days.clamp(min=0) / REPEAT_HALF_LIFE_DAYS)
        out[histories.user_of_entry, histories.items] = torch.log1p(histories.weights * decay_N / REPEAT_FLOOR)
        return out

    def _filter(self, histories: Histories, strengths_N: Tensor) -> Tensor:
        raw_BI = self.filter_rows.apply(histories, strengths_N)
        rms_B1 = raw_BI.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
        return raw_BI.div_(rms_B1).add_(FILTER_FLOOR).log_()

    def _affinity(self, histories: Histories, strengths_N: Tensor, name: str, prior_V: Tensor) -> Tensor:
        """log of (smoothed share of the value in the history / its share in the population), 0 where unknown."""
        codes_I = self.attributes.codes(name)
        counts_BV = strengths_N.new_zeros(len(histories), len(prior_V))
        counts_BV.index_put_((histories.user_of_entry, codes_I[histories.items]), strengths_N, accumulate=True)
        total_B1 = counts_BV.sum(dim=1, keepdim=True)
        share_BV = (counts_BV + AFFINITY_PRIOR * prior_V) / (total_B1 + AFFINITY_PRIOR)
        lift_BV = torch.log(share_BV / prior_V)
        lift_BV[:, UNKNOWN] = 0
        return lift_BV[:, codes_I]

    def _prior(self, name: str) -> Tensor:
        codes_I = self.attributes.codes(name)
        mass_V = torch.zeros(self.attributes.size(name), device=codes_I.device)
        # +1: a value that nobody has bought yet is rare, not impossible
        mass_V.index_add_(0, codes_I, self.popularity.ever_I + 1)
        mass_V = mass_V.clamp(min=1e-6)
        return mass_V / mass_V.sum()
