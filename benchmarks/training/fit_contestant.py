"""Our parts on a split, fitted once and not tuned, by the published protocol. Prints, last, one JSON object.

    python -m benchmarks.training.fit_contestant --train FILE --test FILE --epochs 1

Exponents are the filter's defaults, weights those of `WEIGHTS` below, the settings those of every split. With no epoch
the filter stands alone, untrained.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.recipe import Chosen, fit, measure, recipe_settings, whole_window
from benchmarks.quality.splits import Log, read_split
from components.model.linear_filter import FilterExponents
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.user_vector import StatisticsScaling, UserVector

# What the validation slices of Gowalla chose (docs/model.md); here they are given, and no slice is looked at.
WEIGHTS = {"filter": 1.0, SIMILARITY: 0.3, "popularity": 0.3}
FILTER_ALONE = {"filter": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    known = read_split(given.train)
    wanted = read_split(given.test, shape=known.shape)
    log = Log(known=known)
    weights = ScoreWeights(terms=WEIGHTS if given.epochs else FILTER_ALONE)
    chosen = Chosen(exponents=FilterExponents(), half_life=None, weights=weights)
    settings = recipe_settings(log, max_epochs=max(given.epochs, 1))
    scorer = fit(log, chosen, settings=settings) if given.epochs else untrained(log, chosen)
    users = np.flatnonzero(np.diff(wanted.indptr) > 0)
    means = measure(scorer, log, wanted, users, track=lambda rows, description: rows).means()
    print(json.dumps({"recall": means["recall"], "ndcg": means["ndcg"], "users": len(users), "epochs": given.epochs}))


def untrained(log: Log, chosen: Chosen) -> Scorer:
    """The counted terms; vectors are there and say nothing."""
    window = whole_window(log, chosen)
    nothing_ID = torch.zeros(log.num_items, 2)
    user_vector = UserVector(num_items=log.num_items, dim=2, num_statistics=0, half_life_days=None)
    return Scorer(
        history_ID=nothing_ID,
        target_ID=nothing_ID,
        user_vector=user_vector,
        scaling=StatisticsScaling((), (), ()),
        temperature=1.0,
        counted=window.counted,
        weights=chosen.weights,
    )


if __name__ == "__main__":
    main()
