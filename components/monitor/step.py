"""Monitor step: the days since the bundle's cutoff, and what the pipeline holds, against what the bundle learnt from.

It ends well whatever it finds: drift is an answer, which the DAG `monitoring` and the gauges act upon.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from components.core.artifact import Artifact
from components.core.errors import ArtifactError
from components.core.hashing import code_sha256
from components.core.step import Step, StepContext, StepReport, latest
from components.core.store import Store
from components.model.bundle import Bundle
from components.monitor.evidently_report import write_evidently
from components.monitor.holdings import GraphEdges
from components.monitor.looking import judge_run, look, state_outside
from components.monitor.measures import MEASURES
from components.monitor.page import render_page
from components.monitor.reading import (
    DayReader,
    Lineage,
    bundle_lens,
    load_bundle,
    read_day,
    reference_bins,
    reference_parts,
    serving_bundle,
    window_days,
)
from components.monitor.tally import Bins, Tally, from_plain, plain
from components.monitor.thresholds import Judged, Limits
from components.monitor.verdict import samples_of, statistics_of, summary_of
from components.monitor.windows import Reference, is_whole, judge_windows

# Runs whose figures are kept to learn from, one a day.
KEPT_RUNS = 120


def run(context: StepContext) -> StepReport:
    """clean, bundle -> monitoring: drift.json, tallies.json, history.json, drift.html, evidently.html."""
    settings, store = context.settings.monitor, context.store
    artifact, clean = context.inputs["bundle"], context.inputs["clean"]
    bundle = load_bundle(artifact)
    lineage = Lineage.of(store, artifact)
    previous = _previous(store)
    edges = GraphEdges.read(lineage.graph, bundle.cutoff)
    lens = bundle_lens(bundle, edges, lineage.features)
    parts = reference_parts(lineage, bundle)
    bins, known = _remembered(previous, bundle) or (reference_bins(store, parts, lens), {})
    reader = DayReader(store, lens, bins, known)
    of_day = {part.day: part for part in clean.manifest.partitions}
    days = window_days(bundle, context.moment, most=settings.max_windows)
    reference = Reference.of([(part.day, reader.tally(part)) for part in context.track(parts, description="reference")])
    if days and not is_whole(reader.tally(of_day.get(days[-1])), reference):
        days = days[:-1]
    limits = Limits(
        quiet_windows=settings.quiet_windows,
        min_windows=settings.min_windows,
        false_alarm_rate=settings.false_alarm_rate,
        num_measures=len(MEASURES),
    )
    windows = judge_windows(
        [(day, reader.tally(of_day.get(day))) for day in context.track(days, description="windows")],
        reference,
        limits,
        bounds=settings.bounds,
    )
    holdings = look(context, bundle, lineage, edges, newest=of_day.get(days[-1]) if days else None)
    history = _history(previous, as_of=context.moment)
    judged_run = judge_run(holdings, history, limits, settings.bounds)

    statistics = statistics_of(windows, judged_run, bundle)
    drift = {
        **statistics,
        "reference": {"first": reference.first, "last": reference.last, "days": reference.num_days},
        "windows": [{"day": one.day, "judged": _plain(one.judged)} for one in windows],
        "run": _plain(judged_run),
        "absent": holdings.absent,
        "reference_values": {**reference.values, **holdings.then},
        "limits": asdict(limits),
    }
    _write_json(context, "drift.json", drift)
    _write_json(context, "tallies.json", {"bins": bins.plain(), "days": {k: plain(v) for k, v in reader.used.items()}})
    present = {name: [reading.value, reading.count] for name, reading in holdings.now.items()}
    kept = [*history, {"as_of": context.moment, "values": present}][-KEPT_RUNS:]
    _write_json(context, "history.json", kept)
    context.output.path("drift.html", is_report=True).write_text(
        render_page(
            project=context.settings.project,
            as_of=context.moment,
            statistics=statistics,
            windows=windows,
            reference=reference,
            run=judged_run,
            then=holdings.then,
            absent=holdings.absent,
        ),
        encoding="utf-8",
    )
    if days and (settings.evidently == "always" or (settings.evidently == "drift" and statistics["alarms"])):
        newest = [of_day[day] for day in days[-7:] if day in of_day]
        write_evidently(
            context.output.path("evidently.html", is_report=True),
            reference=[read_day(store, part) for part in parts[-28:]],
            current=[read_day(store, part) for part in newest],
            lens=lens,
            category_of=pa.array(bundle.items.categories, pa.string()),
        )
    return StepReport(
        summary=summary_of(statistics, windows),
        rows=len(windows),
        statistics=statistics,
        samples=samples_of(windows, judged_run, statistics),
    )


def _previous(store: Store) -> Artifact | None:
    """The monitoring before this one: what its days counted and its runs measured need not be found out again."""
    try:
        ref = latest(store, STEP.kind)
        return Artifact.open(store, ref.uri, sha256=ref.sha256, kind=STEP.kind)
    except ArtifactError:
        return None


def _remembered(previous: Artifact | None, bundle: Bundle) -> tuple[Bins, dict[str, Tally]] | None:
    if previous is None or previous.manifest.statistics.get("bundle") != bundle.sha256:
        return None
    if previous.manifest.code_sha256 != code_sha256(STEP.rooms):
        return None
    content = json.loads(previous.path("tallies.json").read_text())
    return Bins.from_plain(content["bins"]), {key: from_plain(one) for key, one in content["days"].items()}


def _history(previous: Artifact | None, *, as_of: datetime) -> list[dict[str, Any]]:
    """Figures of earlier runs, one a day; none of a day that is not yet over as of this run."""
    if previous is None:
        return []
    kept: dict[date, dict[str, Any]] = {}
    for one in json.loads(previous.path("history.json").read_text()):
        moment = datetime.fromisoformat(one["as_of"])
        if moment.date() < as_of.date():
            kept[moment.date()] = one
    return [kept[day] for day in sorted(kept)]


def _plain(judged: Mapping[str, Judged]) -> dict[str, Any]:
    return {name: asdict(one) for name, one in judged.items()}


def _write_json(context: StepContext, name: str, value: Any) -> None:
    text = json.dumps(_finite(value), indent=1, sort_keys=True, allow_nan=False, default=_text)
    context.output.path(name).write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value.item()


STEP = Step(
    name="monitor",
    kind="monitoring",
    inputs=("bundle", "clean"),
    sections=("monitor",),
    rooms=(
        "components.monitor",
        "components.measures.drift",
        "components.model",
        "components.inputs.users",
        "feature_repo.online",
    ),
    run=run,
    fingerprint=state_outside,
    chooses={"bundle": serving_bundle},
)
