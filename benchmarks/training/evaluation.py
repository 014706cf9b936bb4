"""A full evaluation of 30,000 users over 41,000 items, with intervals, beside torchmetrics and ranx without.

    python -m benchmarks.training evaluation

Scoring by a product of vectors is part of it for everybody. torchmetrics judges a user at a time, so it judges some
hundred users and its time is extrapolated; its figures are compared with ours of the same users. Target: 20
CPU-seconds.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from benchmarks.training.measure import Finish, run_contestant
from benchmarks.training.peer_environment import peer_python

USERS, ITEMS, SAMPLE = 30_000, 41_000, 200
CONTESTANT = ["-m", "benchmarks.training.evaluation_contestant"]


def run(console: Console, *, users: int = USERS, items: int = ITEMS) -> dict[str, Any]:
    size = ["--users", str(users), "--items", str(items)]
    sample = [*size, "--judged", str(SAMPLE)]
    finished = {
        "ours": run_contestant([*CONTESTANT, "ours", *size], threads=1),
        "ours, sample": run_contestant([*CONTESTANT, "ours", *sample], threads=1),
        "torchmetrics": run_contestant([*CONTESTANT, "torchmetrics", *sample], threads=1),
        "ranx": run_contestant([*CONTESTANT, "ranx", *size], python=peer_python(), threads=1),
    }
    result = compare(finished, users=users) | {"users": users, "items": items}
    console.print(as_table(result))
    write_result("training-evaluation", result)
    return result


def compare(finished: dict[str, Finish], *, users: int) -> dict[str, Any]:
    """CPU-seconds for all users, and the largest difference of a mean to ours over the same users."""
    rows = {}
    for name, finish in finished.items():
        answer = finish.answer
        reference = finished["ours" if answer["judged"] == users else "ours, sample"].answer["means"]
        rows[name] = finish.to_json() | {
            "cpu_seconds_of_all": round(answer["evaluation_cpu_seconds"] * users / answer["judged"], 1),
            "is_extrapolated": answer["judged"] < users,
            "largest_difference": max(abs(value - reference[metric]) for metric, value in answer["means"].items()),
        }
    own = rows["ours"]["cpu_seconds_of_all"]
    return {
        "evaluators": rows,
        "times_ours": {name: round(row["cpu_seconds_of_all"] / own, 1) for name, row in rows.items()},
    }


def as_table(result: dict[str, Any]) -> Table:
    title = f"Evaluating {result['users']:,} users over {result['items']:,} items, one thread"
    table = Table(title=title, title_justify="left")
    for column in ("", "CPU-s", "× ours", "NDCG@20", "largest difference to ours", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in result["evaluators"].items():
        if name == "ours, sample":
            continue
        (version,) = row["versions"].values()
        label = "ours, with intervals" if name == "ours" else f"{name} {version}"
        if row["is_extrapolated"]:
            label += f", from {row['judged']} users"
        table.add_row(
            label,
            f"{row['cpu_seconds_of_all']:,.1f}",
            f"{result['times_ours'][name]:,.1f}",
            f"{row['means']['ndcg']:.5f}",
            f"{row['largest_difference']:.1e}",
            f"{row['peak_memory_mb']:,.0f}",
        )
    table.caption = "target: 20 CPU-seconds"
    return table
