"""implicit's ALS with 64 factors on Gowalla by the published protocol, beside fits of ours and our whole recipe.

    python -m benchmarks.training als
    python -m benchmarks.training als --ours FILE    # the recipe's figures and ALS's setting of earlier results

ALS gets its confidence weight and regularisation chosen on a hidden tenth of train, and only its last fit is counted.
A fit of ours is counted alike: not tuned, by settings and weights that are given (fit_contestant.py). The CPU-seconds
of the whole recipe hold all of its tuning. Target: better recall at 5 times ALS's CPU-seconds or less.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import RESULTS, write_result
from benchmarks.training.measure import Finish, run_contestant
from benchmarks.training.ours import Ours, our_recipe
from benchmarks.training.splits import cut_validation, published_split

GRID = ((1.0, 0.01), (10.0, 0.01), (10.0, 1.0), (40.0, 10.0))  # alpha, regularisation; the first is the default
EPOCHS = (0, 1)  # of our fits; none: the filter alone
EARLIER = RESULTS / "training-als.json"


def run(console: Console, *, data: str = "gowalla", earlier: Path | None = None) -> dict[str, Any]:
    train, test = published_split(data)
    tried = {} if earlier is not None and EARLIER.exists() else try_settings(train)
    if tried:
        alpha, regularization = max(tried, key=lambda setting: tried[setting].answer["recall"])
    else:
        before = json.loads(EARLIER.read_text())["chosen"]
        alpha, regularization = before["alpha"], before["regularization"]
    als = fit(train, test, alpha, regularization)
    ours = {epochs: fit_ours(train, test, epochs) for epochs in EPOCHS}
    result = compare(als, ours, our_recipe(train, test, earlier=earlier)) | {
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


def try_settings(train: Path) -> dict[tuple[float, float], Finish]:
    with tempfile.TemporaryDirectory() as folder:
        hidden = cut_validation(train, Path(folder))
        return {setting: fit(*hidden, *setting) for setting in GRID}


def fit_ours(train: Path, test: Path, epochs: int) -> Finish:
    arguments = ["--train", str(train), "--test", str(test), "--epochs", str(epochs)]
    return run_contestant(["-m", "benchmarks.training.fit_contestant", *arguments], threads=1)


def fit(train: Path, test: Path, alpha: float, regularization: float) -> Finish:
    setting = ["--alpha", str(alpha), "--regularization", str(regularization)]
    split = ["--train", str(train), "--test", str(test)]
    # One thread: implicit asks for it where a BLAS of many threads is at work beside its own.
    return run_contestant(["-m", "benchmarks.training.als_contestant", *split, *setting], threads=1)


def compare(als: Finish, fits: dict[int, Finish], recipe: Ours) -> dict[str, Any]:
    """Each of ours with its CPU-seconds as a multiple of ALS's, and its lead in recall."""

    def beside(recall: float, cpu_seconds: float) -> dict[str, float]:
        times = round(cpu_seconds / als.cost.cpu_seconds, 2)
        return {"times_als_cpu_seconds": times, "recall_lead": round(recall - als.answer["recall"], 5)}

    return {
        "als": als.to_json(),
        "fits": [one.to_json() | beside(one.answer["recall"], one.cost.cpu_seconds) for one in fits.values()],
        "ours": vars(recipe) | beside(recipe.recall, recipe.cpu_seconds),
    }


def as_table(result: dict[str, Any]) -> Table:
    table = Table(title="Gowalla, published split", title_justify="left")
    for column in ("", "Recall@20", "NDCG@20", "CPU-s", "× ALS", "wall s", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    chosen = result["chosen"]
    rows = [(f"implicit ALS, 64 factors, alpha {chosen['alpha']:g}, reg. {chosen['regularization']:g}", result["als"])]
    for one in result["fits"]:
        trained = f"and {one['epochs']} epoch" if one["epochs"] else "alone"
        rows.append((f"ours, one fit, not tuned: filter {trained}", one))
    rows.append(("ours, the whole recipe, tuning included", result["ours"]))
    for name, row in rows:
        wall, times = row["wall_seconds"], row.get("times_als_cpu_seconds")
        table.add_row(
            name,
            f"{row['recall']:.4f}",
            f"{row['ndcg']:.4f}",
            f"{row['cpu_seconds']:,.0f}",
            "" if times is None else f"{times:.1f}",
            "" if wall is None else f"{wall:,.0f}",
            f"{row['peak_memory_mb']:,.0f}",
        )
    table.caption = (
        f"target: better recall at 5 times ALS's CPU-seconds or less; the recipe from {result['ours']['source']}"
    )
    return table
