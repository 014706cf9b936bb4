"""How an epoch's time and the peak memory grow from 1 M to 30 M interactions and 100 k to 1 M items.

    python -m benchmarks.training growth             # a part of an epoch at each size; the data are generated
    python -m benchmarks.training growth --quick     # up to 3 M interactions

The loss is fixed: sampled softmax with logQ. Some steps of an epoch are timed and multiplied by its number of steps,
which is the same at every size. Targets: CPU-seconds an epoch in proportion to interactions^1.1 or less, 8 GB at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from benchmarks.training.measure import run_contestant

SIZES = ((1_000_000, 100_000), (3_000_000, 210_000), (10_000_000, 470_000), (30_000_000, 1_000_000))


def run(console: Console, *, is_quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    rows = []
    for interactions, items in SIZES[:2] if is_quick else SIZES:
        size = ["--interactions", str(interactions), "--items", str(items), "--device", device]
        rows.append(run_contestant(["-m", "benchmarks.training.growth_contestant", *size], threads=1).to_json())
    clock = "cpu_seconds_an_epoch" if device == "cpu" else "wall_seconds_an_epoch"
    result = {
        "sizes": rows,
        "exponent": round(exponent([row["interactions"] for row in rows], [row[clock] for row in rows]), 3),
        "peak_memory_mb": max(row["peak_memory_mb"] for row in rows),
    }
    console.print(as_table(result, clock))
    write_result(f"training-growth{'-quick' if is_quick else ''}{'' if device == 'cpu' else '-' + device}", result)
    return result


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def as_table(result: dict[str, Any], clock: str) -> Table:
    table = Table(title="Growth, generated data, sampled softmax with logQ, one thread", title_justify="left")
    for column in (
        "interactions",
        "users",
        "items",
        "graph entries",
        "a batch",
        "s an epoch",
        "timed steps",
        "peak MB",
    ):
        table.add_column(column, justify="right")
    for row in result["sizes"]:
        table.add_row(
            *(f"{row[name]:,}" for name in ("interactions", "users", "items", "graph_entries", "batch_users")),
            f"{row[clock]:,.1f}",
            f"{row['timed_steps']} of {row['steps_an_epoch']}",
            f"{row['peak_memory_mb']:,.0f}",
        )
    table.caption = (
        f"time grows as interactions^{result['exponent']:.2f} (target 1.1), peak memory "
        f"{result['peak_memory_mb']:,.0f} MB (target 8,000); "
        "an epoch's seconds are the timed steps' least times its number of steps"
    )
    return table
