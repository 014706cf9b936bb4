"""What the recipe's settings are worth, on the tuning slice of a published split's train file alone.

    python -m benchmarks.quality.trials --train ../shared/data/gowalla/train.txt

Each line differs from the recipe in what it says; one seed. The encoder is judged alone (the filter's weight at 0) and
in the whole score, its weights chosen on the very slice. Prints a table and writes benchmarks/results/trials-NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds, write_result
from benchmarks.quality.__main__ import TUNING_SHARE
from benchmarks.quality.recipe import ENCODER_ALONE, K, choose_filter, choose_weights, fit, measure, recipe_settings
from benchmarks.quality.report import tracker
from benchmarks.quality.splits import Log, hide_share, read_split
from components.model.score import SIMILARITY, ScoreWeights

NO_POPULARITY = "no popularity beneath the logits"
TRIALS: Mapping[str, Mapping[str, Any]] = {
    "the recipe": {},
    NO_POPULARITY: {},
    "learning rate does not rise first": {"warmup_share": 0.0},
    "learning rate .01": {"learning_rate": 0.01},
    "learning rate .03": {"learning_rate": 0.03},
    "8 epochs": {"max_epochs": 8},
    "history dropout .5": {"history_dropout": 0.5},
    "temperature .08": {"temperature": 0.08},
    "temperature .15": {"temperature": 0.15},
    "64 dimensions": {"embedding_dim": 64},
    "no convolution": {"num_layers": 0},
    "2 layers": {"num_layers": 2},
    "sampled softmax, 2,048 draws": {"loss": "sampled_softmax"},
    "BPR, 4 draws": {"loss": "bpr"},
    "contrast of noisy views, weight .1": {"contrast_weight": 0.1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TRIALS, help="some trials, for a look; writes no result")
    given = parser.parse_args()
    if not given.train.is_file():
        parser.error(f"{given.train} is no file; give the split's train file.")
    torch.set_num_threads(2)
    track = tracker(Console(stderr=True))
    kept, hidden = hide_share(read_split(given.train), share=TUNING_SHARE, seed=0)
    log, users = Log(known=kept), np.flatnonzero(np.diff(hidden.indptr) > 0)
    chosen = choose_filter(log, hidden, track=track)
    rows: list[dict[str, Any]] = []
    for trial in given.only or TRIALS:
        started = cpu_seconds()
        has_popularity = trial != NO_POPULARITY
        settings = recipe_settings(log, **TRIALS[trial])
        scorer = fit(log, chosen, settings=settings, with_popularity=has_popularity)
        seconds = cpu_seconds() - started
        _, weights = choose_weights(scorer, log, hidden, track=track)
        alone = ENCODER_ALONE if has_popularity else {SIMILARITY: 1.0}
        found = {
            part: measure(scorer.with_weights(ScoreWeights(terms=terms)), log, hidden, users, track=track).means()
            for part, terms in (("encoder alone", alone), ("whole", weights))
        }
        figures = {part: [round(means[one], 5) for one in ("recall", "ndcg")] for part, means in found.items()}
        rows.append({"name": trial, **figures, "weights": weights, "cpu_seconds": round(seconds, 1)})
    name = given.train.resolve().parent.name
    table = Table("", f"encoder alone, Recall@{K} / NDCG", "whole score", "CPU-s", title=name)
    for row in rows:
        parts = (" / ".join(f"{value:.4f}" for value in row[part]) for part in ("encoder alone", "whole"))
        table.add_row(row["name"], *parts, f"{row['cpu_seconds']:.0f}")
    Console().print(table)
    if given.only is None:
        write_result(f"trials-{name}", {"trials": rows})


if __name__ == "__main__":
    main()
