"""Propagation, the recipe on Gowalla, and growth on CUDA, where there is a device; else it says that there is none.

    python -m benchmarks.training gpu

Targets: at least 60 % of the memory bandwidth in propagation; Gowalla to Recall@20 .1830 in 10 seconds. The recipe is a
fit with the exponents and weights that `benchmarks.quality` chose last, without their search; it runs on the card, and
on the same machine's processor for comparison.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import RESULTS, write_result
from benchmarks.quality.recipe import Chosen, fit, measure, recipe_settings
from benchmarks.quality.splits import Log, read_split
from benchmarks.training import growth, propagation
from benchmarks.training.splits import published_split
from components.model.linear_filter import FilterExponents
from components.model.score import ScoreWeights

NO_DEVICE = "no CUDA device"
COPIED_BYTES = 1 << 30
LIGHTGCN_RECALL = 0.1830


def run(console: Console) -> dict[str, Any]:
    if not torch.cuda.is_available():
        console.print(f"{NO_DEVICE}: nothing was measured")
        result: dict[str, Any] = {"device": NO_DEVICE}
    else:
        copied = copy_bandwidth()
        measured = propagation.run(console, device="cuda")
        result = {
            "device": torch.cuda.get_device_name(),
            "copy_gb_per_second": copied,
            "propagation": measured,
            "share_of_copy_bandwidth": round(measured["ours_gb_per_second"] / copied, 3),
            "recipe": recipe(console),
            "growth": growth.run(console, device="cuda"),
        }
        console.print(
            f"{result['device']}: propagation moves {result['share_of_copy_bandwidth']:.2f} of the {copied:,.0f} GB/s "
            "that a copy moves (target .6)"
        )
    write_result("training-gpu", result)
    return result


def recipe(console: Console, *, devices: tuple[str, ...] = ("cuda", "cpu"), **changes: Any) -> dict[str, Any]:
    """Wall seconds of the parts of one fit, and what its lists are worth on the test file. `changes`: of the recipe."""
    train, test_file = published_split("gowalla")
    known = read_split(train)
    log, test = Log(known=known), read_split(test_file, shape=known.shape)
    users = np.flatnonzero(np.diff(test.indptr) > 0)
    kept = json.loads((RESULTS / "quality-gowalla.json").read_text())
    first, user, last = kept["filter_exponents"]
    chosen = Chosen(
        exponents=FilterExponents(first_item=first, user=user, last_item=last),
        half_life=None,
        weights=ScoreWeights(terms=kept["weights"]),
    )
    rows: dict[str, dict[str, float]] = {}
    for name in devices:
        device = torch.device(name)
        torch.zeros(1, device=device)  # a context is made once a process
        moments = [time.perf_counter()]
        settings = recipe_settings(log, **changes)
        scorer = fit(
            log, chosen, settings=settings, say=lambda _, at=moments: at.append(time.perf_counter()), device=device
        )
        moments.append(time.perf_counter())
        metrics = measure(scorer, log, test, users, track=lambda parts, _: parts).means()
        ranked = time.perf_counter()
        rows[name] = {
            "counting_seconds": round(moments[1] - moments[0], 2),
            "training_seconds": round(moments[-1] - moments[1], 2),
            "fit_seconds": round(moments[-1] - moments[0], 2),
            "ranking_seconds": round(ranked - moments[-1], 2),
            "recall": round(metrics["recall"], 5),
            "ndcg": round(metrics["ndcg"], 5),
        }
    table = Table(title="The recipe on Gowalla, one fit, wall seconds", title_justify="left")
    for column in ("device", *(name.replace("_seconds", "") for name in next(iter(rows.values())))):
        table.add_column(column, justify="left" if column == "device" else "right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:g}" for value in row.values()))
    table.caption = (
        f"counting: graph and filter, on the processor; target: {LIGHTGCN_RECALL} of recall, LightGCN's, in 10 s of fit"
    )
    console.print(table)
    return rows


def copy_bandwidth() -> float:
    """GB a second read and written by a copy on the device."""
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    begin.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    return round(20 * 2 * COPIED_BYTES / (begin.elapsed_time(end) / 1000) / 1e9, 1)
