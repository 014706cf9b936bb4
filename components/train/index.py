"""How the service will find a bundle's items, measured on the bundle's own vectors when the bundle is built."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.model.histories import Histories
from components.model.ranking import NO_ITEM, top_k
from components.model.retrieval import EXACT_ITEMS, Retrieval
from components.model.score import Scorer

log = logging.getLogger(__name__)

LIST_LENGTH = 20
SAMPLE_USERS = 100
LEAST_RECALL = 0.98
# Items looked at that a request has time for: as many as an exact service of EXACT_ITEMS scores.
MOST_SCORED = EXACT_ITEMS
RUN_LIMITS = (MOST_SCORED, 2 * MOST_SCORED, 4 * MOST_SCORED)
# Scores of the two ways differ in the last digits, and items whose scores are that near are one as good as the other.
SAME_SCORE = 1e-4


def measure_retrieval(
    scorer: Scorer, histories: Histories, statistics_BF: Tensor, *, seed: int, most_scored: int = MOST_SCORED
) -> dict[str, Any]:
    """What bundle.json says of the retrieval: its limit, its recall against the whole score, and how much it looks at.

    Args:
        histories: of users as known at the cutoff, and their raw statistics; SAMPLE_USERS of them are asked.
        most_scored: a limit is looked for only where the mean list looks at more items.
    """
    chosen = torch.randperm(len(histories), generator=torch.Generator().manual_seed(seed))[:SAMPLE_USERS]
    users = [(histories.rows(slice(row, row + 1)), statistics_BF[row : row + 1]) for row in chosen.tolist()]
    k = min(LIST_LENGTH, scorer.num_items)
    worst = [_worst_of_list(scorer, *user, k=k) for user in users]
    recall, scored = _recall(Retrieval(scorer), users, worst, k=k)
    found = {"run_limit": None, "recall": recall, "scored_items": scored, "users": len(users), "k": k}
    if scored <= most_scored:
        return found
    for limit in (limit for limit in RUN_LIMITS if limit < scorer.num_items):
        recall, scored = _recall(Retrieval(scorer, run_limit=limit), users, worst, k=k)
        if recall >= LEAST_RECALL:
            return {**found, "run_limit": limit, "recall": recall, "scored_items": scored}
    log.warning("No limit keeps %.0f%% of the lists: the service will look at most items.", LEAST_RECALL * 100)
    return found


def _worst_of_list(scorer: Scorer, history: Histories, statistics: Tensor, *, k: int) -> tuple[int, float]:
    """Length of the list by the whole score over every item, and the score of its last item."""
    items, scores = top_k(scorer.score(history, statistics), k=k, histories=history)
    length = int((items[0] != NO_ITEM).sum())
    return length, float(scores[0, length - 1]) if length else 0.0


def _recall(
    retrieval: Retrieval, users: list[tuple[Histories, Tensor]], worst: list[tuple[int, float]], *, k: int
) -> tuple[float, float]:
    """Mean share of a list that is found, and mean items looked at."""
    shares, looked_at = [], []
    for (history, statistics), (length, least) in zip(users, worst, strict=True):
        found = retrieval.rank(history, statistics, k=k, with_reasons=False)
        looked_at.append(found.num_scored)
        if length:
            shares.append(min(int((found.scores >= least - SAME_SCORE).sum()), length) / length)
    return float(np.mean(shares)) if shares else 1.0, float(np.mean(looked_at)) if looked_at else 0.0
