"""Amazon Beauty, leave last out: the next item, content for items that hardly anybody has, and the baselines.

    python -m benchmarks.quality.beauty --data ../shared/data/beauty --seeds 3

Each user's last item is the test, the one before it the tuning slice. The recipe is that of `python -m
benchmarks.quality`; what is known besides are the order of a user's items and the items' attributes. All items are
scored, those that the user has had left out. Prints tables with paired intervals, writes
benchmarks/results/quality-beauty.json, and prints, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds, peak_memory_mb, write_result
from benchmarks.quality.recipe import MIN_ITEM_USERS, TERMS, Chosen, K, choose, fit, rank, recipe_settings
from benchmarks.quality.report import SEED, interval, shown, tracker
from benchmarks.quality.splits import Log, read_sequences, sequence_log
from components.evaluate.contest import NEW_ITEMS, BaselineEntrant, rank_users
from components.evaluate.tuning import choose_baselines
from components.measures.ranking import list_metrics
from components.model.score import ScoreWeights

BASELINES = ("popularity", "item-kNN", "RP3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with Beauty.txt and its attributes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--weights",
        type=_term_and_weight,
        action="append",
        default=[],
        metavar="TERM=WEIGHT",
        help="in place of what the slice chooses; a look",
    )
    given = parser.parse_args()
    if given.weights and given.out is None:
        parser.error("--weights is a look: say by --out where its JSON goes, so that the recipe's own stays.")
    torch.set_num_threads(2)
    console = Console(stderr=True)
    track = tracker(console)
    sequences, attributes = read_sequences(given.data / "Beauty.txt", given.data / "Beauty_item2attributes.json")

    tuning, tuning_wanted = sequence_log(sequences, leave_out=2, attributes=attributes)
    chosen = choose(tuning, tuning_wanted, settings=recipe_settings(tuning), track=track)
    chosen = replace(chosen, weights=ScoreWeights(terms={**chosen.weights.terms, **dict(given.weights)}))
    log, wanted = sequence_log(sequences, leave_out=1, attributes=attributes)
    # An item that a user has had already can stand in no list.
    wanted = wanted - wanted.multiply(log.known)
    wanted.eliminate_zeros()
    users = np.flatnonzero(np.diff(wanted.indptr) > 0)
    is_cold_U = np.diff(log.known.tocsc().indptr)[wanted[users].indices] < MIN_ITEM_USERS

    baselines = _baseline_recalls(tuning, tuning_wanted, log, wanted, users, track)
    ours, plain, flat = (
        _over_seeds(log, chosen, users, wanted, seeds=given.seeds, track=track, **changes)
        for changes in ({}, {"with_content": False}, {"num_layers": 0})
    )
    report: dict[str, Any] = {
        "users": len(users),
        "recall": round(float(ours[0].mean()), 5),
        "recall_spread": round(float(np.ptp(ours[0].mean(axis=1))), 5),
        "ndcg": round(float(ours[1].mean()), 5),
        "baselines": {name: round(float(recall.mean()), 5) for name, recall in baselines.items()},
        "lead": {name: interval(ours[0].mean(axis=0) - recall) for name, recall in baselines.items()},
        "cold_items": {
            "users": int(is_cold_U.sum()),
            "recall_with_content": round(float(ours[0][:, is_cold_U].mean()), 5),
            "recall_without": round(float(plain[0][:, is_cold_U].mean()), 5),
            "lift": interval((ours[0] - plain[0]).mean(axis=0)[is_cold_U]),
        },
        "without_convolution": {
            name: round(float(flat[number].mean()), 5) for number, name in enumerate(("recall", "ndcg"))
        },
        "convolution_adds": {
            name: interval((ours[number] - flat[number]).mean(axis=0)) for number, name in enumerate(("recall", "ndcg"))
        },
        "recall_without_content": round(float(plain[0].mean()), 5),
        "weights": dict(chosen.weights.terms),
        "half_life_in_items": chosen.half_life,
        "seeds": given.seeds,
        "cpu_seconds": round(cpu_seconds(), 1),
        "peak_memory_mb": peak_memory_mb(),
    }
    write_result("quality-beauty", report, path=given.out)
    Console().print(as_table(report))
    print(json.dumps(report))


def _term_and_weight(text: str) -> tuple[str, float]:
    term, _, weight = text.partition("=")
    if term not in TERMS:
        raise argparse.ArgumentTypeError(f"'{term}' is no term; there are {', '.join(TERMS)}.")
    return term, float(weight)


def as_table(report: dict[str, Any]) -> Table:
    table = Table("", f"Recall@{K}", "lead of the model [95 %]", title="Beauty: each user's last item")
    table.add_row("model", f"{report['recall']:.4f} ± {report['recall_spread']:.4f}", "")
    for name, recall in report["baselines"].items():
        table.add_row(name, f"{recall:.4f}", shown(report["lead"][name]))
    without = report["without_convolution"]["recall"]
    table.add_row("the model without its convolution", f"{without:.4f}", shown(report["convolution_adds"]["recall"]))
    cold = report["cold_items"]
    table.add_section()
    table.add_row(f"items with fewer than {MIN_ITEM_USERS} events, {cold['users']:,} users", "", "")
    table.add_row("with content", f"{cold['recall_with_content']:.4f}", shown(cold["lift"]))
    table.add_row("without", f"{cold['recall_without']:.4f}", "")
    return table


def _over_seeds(
    log: Log,
    chosen: Chosen,
    users: np.ndarray,
    wanted: sp.csr_matrix,
    *,
    seeds: int,
    track: Any,
    with_content: bool = True,
    **changes: Any,
) -> np.ndarray:
    """(2, seeds, B) recall and NDCG of each user."""
    found = []
    for seed in range(seeds):
        scorer = fit(log, chosen, settings=recipe_settings(log, seed=seed, **changes), with_content=with_content)
        metrics = list_metrics(rank(scorer, log, users, track=track), wanted[users])
        found.append((metrics.recall, metrics.ndcg))
    return np.array(found).transpose(1, 0, 2)


def _baseline_recalls(
    tuning: Log, tuning_wanted: sp.csr_matrix, log: Log, wanted: sp.csr_matrix, users: np.ndarray, track: Any
) -> dict[str, np.ndarray]:
    def show(items: Any, total: int) -> Any:
        return track(items, "baselines")

    choices = choose_baselines(tuning.interactions(), tuning_wanted, k=K, seed=SEED, track=show)
    kept = [choice.baseline for choice in choices if choice.baseline.name in BASELINES]
    known = log.interactions()
    for baseline in kept:
        baseline.fit(known)
    lists = rank_users(
        [BaselineEntrant(one) for one in kept], rows=users, seen=known.seen, k=K, track=show, settings=(NEW_ITEMS,)
    )[NEW_ITEMS]
    return {name: list_metrics(ranked, wanted[users]).recall for name, ranked in lists.items()}


if __name__ == "__main__":
    main()
