"""Complete Journey, items new to the household, in three rolling months: the pipeline's own steps, judged side by side.

    python -m benchmarks.quality.rolling_months --seeds 3
    python -m benchmarks.quality.rolling_months --seeds 1 --months 1      # a look

For each of three cutoffs four weeks apart the steps ingest, validate, features, graph and train run by their commands
with the project's defaults, in a folder of their own; `train` runs once a seed, with the convolution and without it
(train.num_layers = 0), all else equal. Every entrant then ranks all items with five or more households at the cutoff;
what a household took that it had not had before counts. Baselines choose their settings on the month before. Months are
pooled, and households are drawn whole, all their months together, when intervals are made.

Prints tables, writes benchmarks/results/quality-complete_journey.json, and prints, last, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.machine import cpu_seconds, write_result
from benchmarks.quality.als import ALS_GRID
from benchmarks.quality.report import tracker
from components.core.artifact import Artifact, ArtifactRef
from components.core.settings import load_settings
from components.core.split import TimeSplit
from components.core.store import Store
from components.evaluate.contest import ALL_ITEMS, NEW_ITEMS, BaselineEntrant, Entrant, ModelEntrant, rank_users
from components.evaluate.tuning import GRIDS, choose_baseline, new_targets
from components.inputs.events import read_events
from components.inputs.users import read_histories, read_statistics
from components.measures.bootstrap import paired_bootstrap
from components.measures.ranking import list_metrics
from components.model.bundle import Bundle

K, RESAMPLES, CONFIDENCE, SEED = 20, 2000, 0.95, 20_171_231
LAST, MONTH = datetime(2018, 1, 1, tzinfo=UTC), timedelta(days=28)
MIN_ITEM_USERS = 5
MODEL, WITHOUT = "model", "without the convolution"
Floats = NDArray[np.float64]


class Candidates:
    """An entrant whose lists hold certain items only."""

    def __init__(self, entrant: Entrant, is_candidate_I: NDArray[np.bool_], *, name: str) -> None:
        self.name, self.settings = name, (NEW_ITEMS,)
        self._entrant, self._left_out = entrant, torch.from_numpy(~is_candidate_I)

    def scores(self, rows: np.ndarray) -> Iterable[tuple[str, Tensor]]:
        for setting, scores_BI in self._entrant.scores(rows):
            if setting != ALL_ITEMS:
                yield setting, scores_BI.masked_fill(self._left_out, -torch.inf)


@dataclass(frozen=True, kw_only=True)
class Month:
    """Recall and NDCG of each household that took something new: entrant -> (2, H)."""

    cutoff: datetime
    households: list[str]
    figures: Mapping[str, Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--months", type=int, default=3)
    parser.add_argument("--home", type=Path, help="keep artifacts here, to go on where a run was broken off")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(2)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="basketweave-months-") as folder:
        home = (given.home or Path(folder)).resolve()
        months = [
            measure_month(home, LAST - MONTH * back, seeds=given.seeds, source={}, console=console)
            for back in range(given.months)
        ]
    report = summarise(months) | {"seeds": given.seeds, "cpu_seconds": round(cpu_seconds(), 1)}
    write_result("quality-complete_journey", report, path=given.out)
    Console().print(as_table(report, "Complete Journey"))
    print(json.dumps(report))


def measure_month(home: Path, as_of: datetime, *, seeds: int, source: Mapping[str, str], console: Console) -> Month:
    """Run the steps as of a moment and rank for every household that took something new in the month before it.

    `source`: settings that name the log, as environment variables; none for the demo's.
    """
    moment = as_of.strftime("%Y-%m-%dT%H:%M:%SZ")
    refs: dict[str, ArtifactRef] = {}
    for step, kind, inputs in (
        ("ingest", "events", ()),
        ("validate", "clean", ("events",)),
        ("features", "features", ("clean",)),
        ("graph", "graph", ("clean",)),
    ):
        refs[kind] = _run_step(home, step, moment, [refs[name] for name in inputs], settings=source, console=console)
    entrants: dict[str, Bundle] = {}
    for seed in range(seeds):
        for name, layers in ((MODEL, None), (WITHOUT, 0)):
            settings = {**source, "BASKETWEAVE_TRAIN__SEED": str(seed)}
            if layers is not None:
                settings["BASKETWEAVE_TRAIN__NUM_LAYERS"] = str(layers)
            train_inputs = [refs[kind] for kind in ("clean", "features", "graph")]
            bundle = _run_step(home, "train", moment, train_inputs, console=console, settings=settings)
            entrants[f"{name}, seed {seed}"] = Bundle.load(Path(bundle.uri))
    return _contest(refs, entrants, as_of, console=console)


def summarise(months: Sequence[Month]) -> dict[str, Any]:
    """Pooled figures, the model's leads, and each month's recall."""
    households = [household for month in months for household in month.households]
    names = [name for name in months[0].figures if not name.startswith((MODEL, WITHOUT))]
    pooled = {name: np.concatenate([month.figures[name] for month in months], axis=1) for name in months[0].figures}
    for name in (MODEL, WITHOUT):
        pooled[name] = np.mean([pooled[one] for one in pooled if one.startswith(f"{name}, seed")], axis=0)
    seeds = [pooled[one][0].mean() for one in pooled if one.startswith(f"{MODEL}, seed")]

    def lead(over: str) -> dict[str, list[float]]:
        differences = (pooled[MODEL] - pooled[over]).T
        found = paired_bootstrap(
            differences, resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED, clusters=households
        )
        return {
            metric: [round(value, 5) for value in (one.mean, one.lower, one.upper)]
            for metric, one in zip(("recall", "ndcg"), found, strict=True)
        }

    def mean(figures_2H: Floats) -> list[float]:
        return [round(float(value), 5) for value in figures_2H.mean(axis=1)]

    def in_month(month: Month, name: str) -> list[float]:
        chosen = [one for key, one in month.figures.items() if key == name or key.startswith(f"{name}, seed")]
        return mean(np.mean(chosen, axis=0))

    return {
        "household_months": len(households),
        "households": len(set(households)),
        "pooled": {name: mean(pooled[name]) for name in (MODEL, WITHOUT, *names)},
        "recall_spread_over_seeds": round(float(np.ptp(seeds)), 5),
        "lead": {name: lead(name) for name in (WITHOUT, *names)},
        "months": {
            f"{month.cutoff:%Y-%m-%d}": {name: in_month(month, name) for name in (MODEL, WITHOUT, *names)}
            for month in months
        },
    }


def as_table(report: Mapping[str, Any], name: str) -> Table:
    title = f"{name}, new items, {report['household_months']:,} household months pooled, {report['seeds']} seeds"
    table = Table("", f"Recall@{K}", f"NDCG@{K}", "the model's lead in recall", "in NDCG", title=title)
    for entrant, (recall, ndcg) in report["pooled"].items():
        leads = report["lead"].get(entrant, {})
        cells = [f"{mean:+.4f} [{low:.4f}, {high:.4f}]" for mean, low, high in leads.values()]
        table.add_row(entrant, f"{recall:.4f}", f"{ndcg:.4f}", *cells)
    table.add_section()
    for month, figures in report["months"].items():
        table.add_row(f"model, month from {month}", *(f"{value:.4f}" for value in figures[MODEL]))
    return table


def _contest(
    refs: Mapping[str, ArtifactRef], bundles: Mapping[str, Bundle], as_of: datetime, *, console: Console
) -> Month:
    split = TimeSplit.of(as_of, load_settings().split)
    clean, features = (_open(refs[kind]) for kind in ("clean", "features"))
    first = next(iter(bundles.values()))
    item_ids = pa.array(first.items.item_ids, pa.string())
    categories = first.items.categories
    code_of = {name: code for code, name in enumerate(sorted({one for one in categories if one is not None}))}
    category = np.array([-1 if one is None else code_of[one] for one in categories])
    log = read_events(clean.partition_paths(), item_ids=item_ids, track=lambda paths: paths)
    track = tracker(console)

    def show(items: Iterable[Any], total: int) -> Iterable[Any]:
        return track(items, "ranking")

    before, before_taken = log.known_at(split.validation.start, category=category), log.targets_in(split.validation)
    known = log.known_at(split.cutoff, category=category)
    is_candidate_I = known.popularity >= MIN_ITEM_USERS
    entrants: list[Entrant] = []
    for name, grid in {**GRIDS, "implicit ALS": ALS_GRID}.items():
        choice = choose_baseline([make() for make in grid], before, before_taken, k=K, seed=SEED, track=show)
        choice.baseline.fit(known)
        entrant = BaselineEntrant(choice.baseline)
        if NEW_ITEMS in entrant.settings:
            entrants.append(Candidates(entrant, is_candidate_I, name=name))
    histories = read_histories(features, split.cutoff, user_ids=log.user_ids, item_ids=item_ids)
    statistics = read_statistics(features, split.cutoff, user_ids=log.user_ids, names=first.statistics_names)
    for name, bundle in bundles.items():
        model = ModelEntrant(bundle.scorer, histories=histories, statistics=statistics)
        entrants.append(Candidates(model, is_candidate_I, name=name))
    taken = new_targets(log.targets_in(split.holdout), known.seen)[:, : log.num_items]
    taken = sp.csr_matrix(taken.multiply(is_candidate_I[None, :]))
    taken.eliminate_zeros()
    rows = np.flatnonzero(np.diff(taken.indptr))
    lists = rank_users(entrants, rows=rows, seen=known.seen, k=K, track=show, settings=(NEW_ITEMS,))[NEW_ITEMS]
    figures = {}
    for name, ranked in lists.items():
        metrics = list_metrics(ranked, taken[rows])
        figures[name] = np.stack([metrics.recall, metrics.ndcg])
    return Month(cutoff=split.cutoff, households=log.user_ids.take(pa.array(rows)).to_pylist(), figures=figures)


def _run_step(
    home: Path,
    step: str,
    moment: str,
    inputs: Sequence[ArtifactRef],
    *,
    settings: Mapping[str, str],
    console: Console,
) -> ArtifactRef:
    home.mkdir(parents=True, exist_ok=True)
    result = home / f"{step}.result.json"
    command = [sys.executable, "-m", f"components.{step}", "--as-of", moment, "--result", str(result)]
    for ref in inputs:
        command += ["--input", f"{ref.kind}={ref.uri}@{ref.sha256}"]
    environment = os.environ | {"BASKETWEAVE_HOME": str(home)} | dict(settings)
    with console.status(f"{step}, as of {moment[:10]}"):
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {ended.stderr.strip().splitlines()[-1]}")
    console.print(f"[dim]{moment[:10]} {ended.stdout.strip().splitlines()[-1]}[/]", highlight=False)
    return ArtifactRef.model_validate_json(result.read_text())


def _open(ref: ArtifactRef) -> Artifact:
    return Artifact.open(Store(str(Path(ref.uri).parents[1])), ref.uri, sha256=ref.sha256)


if __name__ == "__main__":
    main()
