"""PyTorch Geometric's and RecBole's LightGCN at their recommended settings, beside our whole recipe.

    python -m benchmarks.training peers --budget 120

Everybody trains on the same nine tenths of Gowalla's train file and is judged on the hidden tenth, so the published
test file decides nothing. A peer would take hours to days, so it runs for a bounded number of CPU-seconds. Then:

- measured: CPU-seconds a step, and the recall that it has reached by the budget;
- extrapolated: those of all epochs that its own settings recommend. That these reach our recall is granted, not shown.

One thread for the peers: none of its CPU-seconds is lost by threads that wait for each other. Target: 30 × ours.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from benchmarks.training.measure import Finish, run_contestant
from benchmarks.training.ours import Ours, our_recipe
from benchmarks.training.peer_environment import REQUIREMENTS, peer_python
from benchmarks.training.splits import cut_validation, published_split

PEERS = {"pyg": "PyTorch Geometric", "recbole": "RecBole"}


def run(
    console: Console, *, budget: float = 120.0, data: str = "gowalla", earlier: Path | None = None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        train, test = cut_validation(published_split(data)[0], Path(folder))
        split = ["--train", str(train), "--test", str(test)]
        peers = {}
        for peer in PEERS:
            arguments = ["-m", "benchmarks.training.peer_lightgcn", peer, *split, "--budget", str(budget)]
            peers[peer] = run_contestant(arguments, python=peer_python(), threads=1)
        ours = our_recipe(train, test, earlier=earlier)
    result = compare(peers, ours) | {"requirements": REQUIREMENTS.read_text().splitlines()[1:]}
    console.print(as_table(result))
    write_result("training-peers", result)
    return result


def compare(peers: dict[str, Finish], ours: Ours) -> dict[str, Any]:
    compared = {}
    for name, finish in peers.items():
        answer = finish.answer
        a_step = answer["cpu_seconds_of_steps"] / answer["steps"]
        an_epoch = a_step * answer["steps_an_epoch"]
        extrapolated = an_epoch * answer["recommended_epochs"]
        compared[name] = finish.to_json() | {
            "cpu_seconds_a_step": round(a_step, 4),
            "cpu_seconds_an_epoch": round(an_epoch, 1),
            "extrapolated_cpu_seconds": round(extrapolated),
            "extrapolated_times_ours": round(extrapolated / ours.cpu_seconds, 1),
            "recall_in_budget": answer["curve"][-1]["recall"],
        }
    return {"peers": compared, "ours": vars(ours)}


def as_table(result: dict[str, Any]) -> Table:
    table = Table(title="LightGCN by others, Recall@20 on a hidden tenth of train", title_justify="left")
    for column in (
        "",
        "CPU-s",
        "of it epochs",
        "Recall@20",
        "CPU-s an epoch",
        "epochs",
        "CPU-s of all",
        "× ours",
        "peak MB",
    ):
        table.add_column(column, justify="right" if column else "left")
    ours = result["ours"]
    table.add_row(
        "ours, the whole recipe",
        f"{ours['cpu_seconds']:,.0f}",
        "all",
        f"{ours['recall']:.4f}",
        "",
        "",
        f"{ours['cpu_seconds']:,.0f}",
        "1",
        f"{ours['peak_memory_mb']:,.0f}",
    )
    for name, row in result["peers"].items():
        (package, version), *_ = row["versions"].items()
        table.add_row(
            f"{PEERS[name]} ({package} {version})",
            f"{row['cpu_seconds_of_steps']:,.0f}",
            f"{row['curve'][-1]['epochs']:.2f}",
            f"{row['recall_in_budget']:.4f}",
            f"{row['cpu_seconds_an_epoch']:,.0f}",
            f"{row['recommended_epochs']}",
            f"{row['extrapolated_cpu_seconds']:,}",
            f"{row['extrapolated_times_ours']:,.0f}",
            f"{row['peak_memory_mb']:,.0f}",
        )
    table.caption = (
        "CPU-s of all: extrapolated from the measured steps to the epochs that the peer's settings recommend; "
        f"that these reach our recall is granted, not shown. Ours: {ours['source']}."
    )
    return table
