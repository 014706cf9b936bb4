"""Complete Journey: what a start from an older bundle saves, and what it costs, beside a cold start of the same day.

    python -m benchmarks.warm_start                     # from a bundle one day and one week old
    python -m benchmarks.warm_start --days 1            # a look

The project's own steps run in a folder of their own (--home keeps it, and a second run reuses what is there). The older
bundle is a cold one of its day. All bundles of the last day are judged on its hold-out: Recall@20 and NDCG@20 on items
new to the household, over all items, differences from the cold start with paired intervals over households.

Prints a table, writes benchmarks/results/warm_start.json, and prints, last, one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds, write_result
from components.core.artifact import Artifact, ArtifactRef
from components.core.command import load_step
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit
from components.core.step import execute
from components.core.store import Store
from components.inputs.events import read_events
from components.inputs.users import read_histories, read_statistics
from components.measures.bootstrap import paired_bootstrap
from components.measures.ranking import list_metrics, top_lists
from components.model.bundle import Bundle

K, RESAMPLES, CONFIDENCE = 20, 2000, 0.95
LAST = datetime(2018, 1, 1, tzinfo=UTC)
BEFORE = ("ingest", "validate", "features", "graph")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, nargs="+", default=[7, 1], help="ages of the bundles that are started from")
    parser.add_argument("--seed", type=int, default=20_261_124)
    parser.add_argument("--home", type=Path, help="where the steps leave their artifacts; default: a temporary folder")
    given = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        home = given.home or Path(folder)
        rows: list[dict[str, Any]] = []
        cold, seconds = train(settings_of(home, seed=given.seed, warm=False), LAST)
        base = holdout_metrics(settings_of(home, seed=given.seed, warm=False), cold)
        rows.append(row("cold", cold, seconds, base, base))
        for days in given.days:
            console.print(f"[dim]from a bundle {days} days old[/]")
            settings = settings_of(home, seed=given.seed, warm=True)
            forget_older(settings)
            train(settings, LAST - timedelta(days=days))
            warm, seconds = train(settings, LAST)
            rows.append(row(f"{days} days old", warm, seconds, holdout_metrics(settings, warm), base))
    Console().print(as_table(rows))
    report = {"seed": given.seed, "rows": rows}
    write_result("warm_start", report)
    print(json.dumps(report))


def settings_of(home: Path, *, seed: int, warm: bool) -> Settings:
    return load_settings(home=home, train={"seed": seed, "warm_start": warm})


def train(settings: Settings, as_of: datetime) -> tuple[Any, float]:
    """-> the bundle's manifest, and the CPU-seconds of its training alone."""
    refs: dict[str, ArtifactRef] = {}
    for name in BEFORE:
        step = load_step(name)
        inputs = {kind: refs[kind] for kind in step.inputs}
        refs[step.kind] = execute(step, settings=settings, inputs=inputs, run_id="warm", as_of=as_of).ref
    step = dataclasses.replace(load_step("train"), reusable=False)
    before = cpu_seconds()
    inputs = {kind: refs[kind] for kind in step.inputs}
    done = execute(step, settings=settings, inputs=inputs, run_id=f"{as_of:%Y%m%d}", as_of=as_of)
    return done.manifest, cpu_seconds() - before


def forget_older(settings: Settings) -> None:
    """Delete the bundles of earlier days, so that the next older one starts cold."""
    store = Store(settings.artifact_root)
    for key in store.list_dir("bundle"):
        if store.exists(f"bundle/{key}/manifest.json"):
            as_of = datetime.fromisoformat(store.read_json(f"bundle/{key}/manifest.json")["as_of"])
            if as_of < LAST:
                store.delete(f"bundle/{key}")


def holdout_metrics(settings: Settings, manifest: Any) -> dict[str, np.ndarray]:
    """Recall and NDCG of each household with an item new to it in the hold-out."""
    store = Store(settings.artifact_root)
    inputs = {ref.kind: Artifact.open(store, ref.uri) for ref in manifest.inputs}
    bundle = Bundle.load(Path(manifest.uri))
    item_ids = pa.array(bundle.items.item_ids)
    split = TimeSplit.of(manifest.as_of, settings.split)
    log = read_events(inputs["clean"].partition_paths(), item_ids=item_ids, track=lambda paths: paths)
    seen = log.known_at(split.cutoff, category=np.full(log.num_items, -1)).seen
    taken = sp.csr_matrix(log.targets_in(split.holdout))
    known = sp.csr_matrix((log.num_users, taken.shape[1]), dtype=np.float32)
    known[:, : log.num_items] = seen
    new = sp.csr_matrix(taken - taken.multiply(known > 0))
    new.eliminate_zeros()
    users = np.flatnonzero(np.diff(new.indptr))
    user_ids = log.user_ids.take(pa.array(users))
    histories = read_histories(inputs["features"], split.cutoff, user_ids=user_ids, item_ids=item_ids)
    names = bundle.statistics_names
    statistics = read_statistics(inputs["features"], split.cutoff, user_ids=user_ids, names=names)
    recall, ndcg = [], []
    for rows in torch.split(torch.arange(len(users)), 128):
        scores = bundle.scorer.score(histories.rows(rows), statistics[rows])
        scores[torch.from_numpy(seen[users[rows.numpy()]].toarray() > 0)] = -torch.inf
        metrics = list_metrics(top_lists(scores, k=K), sp.csr_matrix(new[users[rows.numpy()]]))
        recall.append(metrics.recall)
        ndcg.append(metrics.ndcg)
    return {"recall": np.concatenate(recall), "ndcg": np.concatenate(ndcg)}


def row(
    start: str, manifest: Any, seconds: float, metrics: dict[str, np.ndarray], base: dict[str, np.ndarray]
) -> dict[str, Any]:
    out: dict[str, Any] = {"start": start, "cpu_seconds": round(seconds, 1), "households": len(metrics["recall"])}
    out["epochs"] = manifest.statistics["epochs"]
    out["summary"] = manifest.summary
    for name, values in metrics.items():
        (interval,) = paired_bootstrap(values - base[name], resamples=RESAMPLES, confidence=CONFIDENCE, seed=0)
        out[name] = round(float(values.mean()), 5)
        out[f"{name}_difference"] = [round(one, 5) for one in (interval.mean, interval.lower, interval.upper)]
    return out


def as_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("start", "CPU-s", "epochs", f"Recall@{K}", "against cold", f"NDCG@{K}", "against cold")
    for one in rows:
        cells = [one["start"], f"{one['cpu_seconds']:.0f}", str(one["epochs"])]
        for name in ("recall", "ndcg"):
            mean, low, high = one[f"{name}_difference"]
            cells += [f"{one[name]:.4f}", f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"]
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    main()
