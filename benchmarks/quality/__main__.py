"""The recommender on a published split: lines of `user item item …`, no times, no features.

    python -m benchmarks.quality --train train.txt --test test.txt --seeds 3
    python -m benchmarks.quality --train train.txt --test test.txt --seeds 1 --epochs 1     # a look
    python -m benchmarks.quality --train train.txt --test test.txt --seeds 3 --device cuda --out FILE.json

Protocol: for each user with a test item all items are scored, the user's train items left out, and the best 20 listed;
means over those users. All settings are chosen on a fifth of each user's train items, as large a part as published
splits hold out; then the recipe runs on all of train, once a seed. The test file is read last and scored once a seed.

Prints a table, writes benchmarks/results/quality-NAME.json, and prints, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds, peak_memory_mb, write_result
from benchmarks.quality.recipe import ENCODER_ALONE, Chosen, K, choose, fit, measure, recipe_settings
from benchmarks.quality.report import interval, shown, tracker
from benchmarks.quality.splits import Log, hide_share, read_split
from components.model.score import ScoreWeights

TUNING_SHARE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--dim", type=int, help="default: the recipe's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of training and ranking")
    parser.add_argument(
        "--out", type=Path, help="where to write the JSON; default benchmarks/results/quality-NAME.json"
    )
    given = parser.parse_args()
    for path in (given.train, given.test):
        if not path.is_file():
            parser.error(f"{path} is no file; give the split's train and test files.")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("No CUDA device is here; leave --device out.")
    device = torch.device(given.device)
    torch.set_num_threads(2)
    console = Console(stderr=True)
    track = tracker(console)
    changes = {
        name: value for name, value in (("embedding_dim", given.dim), ("max_epochs", given.epochs)) if value is not None
    }

    def say(text: str) -> None:
        console.print(f"[dim]{text}; {cpu_seconds():.0f} CPU-s so far[/]")

    known = read_split(given.train)
    kept, hidden = hide_share(known, share=TUNING_SHARE, seed=0)
    tuning = Log(known=kept)
    chosen = choose(tuning, hidden, settings=recipe_settings(tuning, **changes), track=track, say=say, device=device)
    tuning_cpu_seconds = cpu_seconds()
    test = read_split(given.test, shape=known.shape)
    log, users = Log(known=known), np.flatnonzero(np.diff(test.indptr) > 0)
    one_seed_cpu_seconds = 0.0
    results: list[dict[str, dict[str, float]]] = []
    convolution_adds: list[np.ndarray] = []
    for seed in range(given.seeds):
        scorer = fit(log, chosen, settings=recipe_settings(log, seed=seed, **changes), say=say, device=device)
        variants = {
            "whole": chosen.weights,
            "encoder alone": ScoreWeights(terms=ENCODER_ALONE),
            "filter alone": ScoreWeights(terms={"filter": 1.0}),
        }
        found: dict[str, dict[str, float]] = {}
        for name, weights in variants.items():
            metrics = measure(scorer.with_weights(weights), log, test, users, track=track)
            found[name] = metrics.means()
            if name == "whole":
                whole = metrics
                one_seed_cpu_seconds = one_seed_cpu_seconds or cpu_seconds()
        # The same score, the same seed, the same weights, only that no item hears from its neighbours.
        flat = fit(
            log, chosen, settings=recipe_settings(log, seed=seed, **changes, num_layers=0), say=say, device=device
        )
        metrics = measure(flat, log, test, users, track=track)
        found["without convolution"] = metrics.means()
        convolution_adds.append(np.stack([whole.recall - metrics.recall, whole.ndcg - metrics.ndcg]))
        results.append(found)
    adds_2B = np.mean(convolution_adds, axis=0)
    report = summarise(results, chosen) | {
        "convolution_adds": {name: interval(adds_B) for name, adds_B in zip(("recall", "ndcg"), adds_2B, strict=True)},
        "cpu_seconds": round(one_seed_cpu_seconds, 1),
        "cpu_seconds_of_tuning": round(tuning_cpu_seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
        "seeds": given.seeds,
        "device": given.device,
    }
    name = given.train.resolve().parent.name
    write_result(f"quality-{name}", report, path=given.out)
    Console().print(as_table(report, name))
    print(json.dumps(report))


def summarise(results: list[dict[str, dict[str, float]]], chosen: Chosen) -> dict[str, Any]:
    """Means over seeds, and the spread from the lowest to the highest."""

    def over_seeds(part: str, name: str, of: Callable[..., Any]) -> float:
        return round(float(of([result[part][name] for result in results])), 5)

    parts = {
        part: {name: over_seeds(part, name, np.mean) for name in ("recall", "ndcg")}
        | {f"{name}_spread": over_seeds(part, name, np.ptp) for name in ("recall", "ndcg")}
        for part in results[0]
    }
    exponents = chosen.exponents
    return {
        **parts["whole"],
        "encoder_alone": parts["encoder alone"],
        "filter_alone": parts["filter alone"],
        "without_convolution": parts["without convolution"],
        "weights": dict(chosen.weights.terms),
        "filter_exponents": [exponents.first_item, exponents.user, exponents.last_item],
    }


def as_table(report: Mapping[str, Any], name: str) -> Table:
    title = f"{name}: test, mean ± spread over {report['seeds']} seeds; {report['cpu_seconds']:.0f} CPU-seconds for one"
    table = Table("", f"Recall@{K}", f"NDCG@{K}", title=title)
    for label, part in (
        ("whole score", report),
        ("trained encoder alone", report["encoder_alone"]),
        ("filter alone", report["filter_alone"]),
        ("whole, without the convolution", report["without_convolution"]),
    ):
        table.add_row(label, *(f"{part[one]:.4f} ± {part[f'{one}_spread']:.4f}" for one in ("recall", "ndcg")))
    table.add_row("what the convolution adds", *(shown(report["convolution_adds"][one]) for one in ("recall", "ndcg")))
    return table


if __name__ == "__main__":
    main()
