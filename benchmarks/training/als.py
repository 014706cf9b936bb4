"""implicit's ALS with 64 factors on Gowalla by the published protocol, beside our whole recipe.

    python -m benchmarks.training als

ALS gets its confidence weight and regularisation chosen on a hidden tenth of train, and only its last fit is counted,
which favours it; our CPU-seconds hold all of our tuning. Target: better recall at 5 times its CPU-seconds or less.
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
from benchmarks.training.splits import cut_validation, published_split

GRID = ((1.0, 0.01), (10.0, 0.01), (10.0, 1.0), (40.0, 10.0))  # alpha, regularisation; the first is the default


def run(console: Console, *, data: str = "gowalla", earlier: Path | None = None) -> dict[str, Any]:
    train, test = published_split(data)
    with tempfile.TemporaryDirectory() as folder:
        hidden = cut_validation(train, Path(folder))
        tried = {setting: fit(*hidden, *setting) for setting in GRID}
    alpha, regularization = max(tried, key=lambda setting: tried[setting].answer["recall"])
    als = fit(train, test, alpha, regularization)
    ours = our_recipe(train, test, earlier=earlier)
    result = compare(als, ours) | {
        "chosen": {"alpha": alpha, "regularization": regularization},
        "tried": [
            {"alpha": a, "regularization": r, "validation_recall": round(finish.answer["recall"], 5)}
            | vars(finish.cost)
            for (a, r), finish in tried.items()
        ],
    }
    console.print(as_table(result))
    write_result("training-als", result)
    return result


def fit(train: Path, test: Path, alpha: float, regularization: float) -> Finish:
    setting = ["--alpha", str(alpha), "--regularization", str(regularization)]
    split = ["--train", str(train), "--test", str(test)]
    # One thread: implicit asks for it where a BLAS of many threads is at work beside its own.
    return run_contestant(["-m", "benchmarks.training.als_contestant", *split, *setting], threads=1)


def compare(als: Finish, ours: Ours) -> dict[str, Any]:
    times = ours.cpu_seconds / als.cost.cpu_seconds
    return {
        "als": als.to_json(),
        "ours": vars(ours),
        "ours_times_als_cpu_seconds": round(times, 2),
        "recall_lead": round(ours.recall - als.answer["recall"], 5),
    }


def as_table(result: dict[str, Any]) -> Table:
    table = Table(title="Gowalla, published split", title_justify="left")
    for column in ("", "Recall@20", "NDCG@20", "CPU-s", "wall s", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    chosen = result["chosen"]
    als_name = f"implicit ALS, 64 factors, alpha {chosen['alpha']:g}, reg. {chosen['regularization']:g}"
    for name, row in (("ours, the whole recipe", result["ours"]), (als_name, result["als"])):
        wall = row["wall_seconds"]
        table.add_row(
            name,
            f"{row['recall']:.4f}",
            f"{row['ndcg']:.4f}",
            f"{row['cpu_seconds']:,.0f}",
            "" if wall is None else f"{wall:,.0f}",
            f"{row['peak_memory_mb']:,.0f}",
        )
    table.caption = (
        f"ours: {result['ours_times_als_cpu_seconds']:.1f} × its CPU-seconds (target 5), recall "
        f"{result['recall_lead']:+.4f}; ours from {result['ours']['source']}"
    )
    return table
