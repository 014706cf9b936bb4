"""The golden request: a made-up user and the answer that the bundle gave when it was made.

A loaded bundle that answers otherwise is damaged, or runs on code that scores otherwise; it must not serve.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from components.core.errors import ArtifactError
from components.model.histories import Histories
from components.model.ranking import top_k
from components.model.score import Scorer

GOLDEN_K = 10
# Scores of different processors differ in the last digits; an order that hangs on less than this is no error.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Golden:
    """Item indices and ages of the made-up history (the best-known items, a day apart), and the best items for it."""

    items: tuple[int, ...]
    ages_days: tuple[float, ...]
    answer_items: tuple[int, ...]
    answer_scores: tuple[float, ...]

    @classmethod
    def of(cls, scorer: Scorer, *, popularity: Tensor) -> Golden:
        """Ask the scorer."""
        count = min(5, scorer.num_items)
        items = tuple(torch.sort(popularity, descending=True, stable=True).indices[:count].tolist())
        ages = tuple(float(day + 1) for day in range(count))
        answer_items, answer_scores = _ask(scorer, items, ages)
        return cls(items, ages, tuple(answer_items), tuple(answer_scores))

    def check(self, scorer: Scorer) -> None:
        """Raise ArtifactError if the scorer's answer is not the recorded one."""
        items, scores = _ask(scorer, self.items, self.ages_days)
        close = len(scores) == len(self.answer_scores) and all(
            abs(now - then) <= TOLERANCE * max(1.0, abs(then))
            for now, then in zip(scores, self.answer_scores, strict=True)
        )
        if not close or len(set(items) & set(self.answer_items)) < len(items) - 1:
            raise ArtifactError("The bundle does not give its golden answer. It is damaged, or made by other code.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Golden:
        return cls(**{name: tuple(value) for name, value in content.items()})


def _ask(scorer: Scorer, items: tuple[int, ...], ages_days: tuple[float, ...]) -> tuple[list[int], list[float]]:
    histories = Histories.from_lists([items], [[1.0] * len(items)], [ages_days])
    statistics_BF = torch.full((1, len(scorer.scaling.names)), torch.nan)
    best = top_k(scorer.score(histories, statistics_BF), k=GOLDEN_K, histories=histories)
    kept = best[0][0] >= 0
    return best[0][0][kept].tolist(), [round(value, 6) for value in best[1][0][kept].tolist()]
