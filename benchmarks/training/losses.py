"""All items or a sample of them: CPU-seconds of a training step by catalogue size, behind `train.loss = auto`.

    python -m benchmarks.training losses

256 users a batch, generated data (benchmarks/training/growth_contestant.py), one thread; the convolution over all items
is in both. Reach counts too: a step of the full softmax teaches more than one of a sample.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from benchmarks.training.measure import run_contestant

SIZES = (10_000, 30_000, 100_000, 300_000)
LOSSES = ("full_softmax", "sampled_softmax")
INTERACTIONS, BATCH_USERS = 1_000_000, 256


def run(console: Console) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"items": items, **{loss: _step(items, loss) for loss in LOSSES}} for items in SIZES]
    table = Table("items", *LOSSES, "full over sampled", title="CPU-seconds of a step", title_justify="left")
    for row in rows:
        full, sampled = (row[loss]["cpu_seconds_a_step"] for loss in LOSSES)
        table.add_row(f"{row['items']:,}", f"{full:.3f}", f"{sampled:.3f}", f"{full / sampled:.2f}")
    console.print(table)
    result = {"batch_users": BATCH_USERS, "sizes": rows}
    write_result("training-losses", result)
    return result


def _step(items: int, loss: str) -> dict[str, Any]:
    size = ["--interactions", str(INTERACTIONS), "--items", str(items), "--batch-users", str(BATCH_USERS)]
    arguments = ["-m", "benchmarks.training.growth_contestant", *size, "--loss", loss, "--steps", "5"]
    return run_contestant(arguments, threads=1).to_json()
