"""Monitor step: the days since the bundle's cutoff, and what the pipeline holds, against what the bundle learnt from.

It ends well whatever it finds: drift is an answer, which the DAG `monitoring` and the gauges act upon.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.core.artifact import Artifact, Partition
from components.core.errors import ArtifactError, FeatureStoreError
from components.core.hashing import code_sha256
from components.core.live import read_pointer
from components.core.pipeline_metrics import Sample
from components.core.step import Step, StepContext, StepReport, latest
from components.core.store import Store
from components.model.bundle import Bundle
from components.monitor import holdings as held
from components.monitor.evidently_report import write_evidently
from components.monitor.measures import MEASURES, RUN_MEASURES, Reading
from components.monitor.page import render_page
from components.monitor.reading import (
    DayReader,
    Lineage,
    bundle_lens,
    read_day,
    reference_bins,
    reference_parts,
    serving_bundle,
    window_days,
)
from components.monitor.tally import Bins, Tally, from_plain, plain
from components.monitor.thresholds import Expectation, Judged, Limits, judge, to_scale
from components.monitor.windows import Reference, Window, is_whole, judge_windows
from feature_repo.layout import FeastHome
from feature_repo.online import SCALAR_STATISTICS, OnlineFeatures

SEED = 20_171_231
# Runs whose figures are kept to learn from, one a day.
KEPT_RUNS = 120
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def run(context: StepContext) -> StepReport:
    """clean, bundle -> monitoring: drift.json, tallies.json, history.json, drift.html, evidently.html."""
    settings, store = context.settings.monitor, context.store
    artifact, clean = context.inputs["bundle"], context.inputs["clean"]
    bundle = _load(artifact, store)
    lineage = Lineage.of(store, artifact)
    previous = _previous(store)
    edges = held.GraphEdges.read(lineage.graph, bundle.cutoff)
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
    holdings = _look(context, bundle, lineage, edges, newest=of_day.get(days[-1]) if days else None)
    history = _history(previous, as_of=context.moment)
    judged_run = _judge_run(holdings, history, limits, settings.bounds)

    statistics = _statistics(windows, judged_run, bundle)
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
            category_of=_category_names(bundle),
        )
    return StepReport(
        summary=_summary(statistics, windows),
        rows=len(windows),
        statistics=statistics,
        samples=_samples(windows, judged_run, statistics),
    )


def _load(artifact: Artifact, store: Store) -> Bundle:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="basketweave-monitor-") as folder:
        return Bundle.load(artifact.local_folder(Path(folder)))


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


def _look(
    context: StepContext, bundle: Bundle, lineage: Lineage, edges: held.GraphEdges, *, newest: Partition | None
) -> held.Holdings:
    """Every measure of the run."""
    store, clean = context.store, context.inputs["clean"]
    holdings = held.Holdings()
    catalogue = clean.table("catalog.parquet")["item_id"].combine_chunks()
    held.look_at_catalogue(holdings, item_ids=pa.array(bundle.items.item_ids, pa.string()), catalogue_ids=catalogue)

    graph = _newest(store, "graph") or lineage.graph
    is_same = graph.manifest.content_sha256 == lineage.graph.manifest.content_sha256
    newest_edges = edges if is_same else held.GraphEdges.read(graph, held.newest_cutoff(graph))
    held.look_at_graph(holdings, live=edges, newest=newest_edges)
    held.look_at_vectors(holdings, live=bundle, before=_bundle_before(store, bundle), seed=SEED)

    features = _newest(store, "features") or lineage.features
    now = (features, _last_moment(features))
    trained = (lineage.features, bundle.cutoff)
    names = tuple(name for name in bundle.statistics_names if name in SCALAR_STATISTICS) or SCALAR_STATISTICS
    held.look_at_user_statistics(holdings, features=now, trained=trained, names=names)
    users = _visitors(store, newest, count=context.settings.monitor.sampled_users)
    user_ids = pa.array(users, pa.string())
    held.look_at_lists(holdings, bundle=bundle, features=now, trained=trained, user_ids=user_ids)
    held.look_at_feature_store(
        holdings, online=_online(context, users), offline=now, as_of=context.moment, names=SCALAR_STATISTICS
    )
    return holdings


def _newest(store: Store, kind: str) -> Artifact | None:
    try:
        ref = latest(store, kind)
        return Artifact.open(store, ref.uri, sha256=ref.sha256, kind=kind)
    except ArtifactError:
        return None


def _bundle_before(store: Store, live: Bundle) -> Bundle | None:
    pointer = read_pointer(store)
    previous = pointer.previous if pointer is not None and pointer.bundle.sha256 == live.sha256 else None
    if previous is None:
        return None
    try:
        return _load(Artifact.open(store, previous.uri, sha256=previous.sha256, kind="bundle"), store)
    except ArtifactError:
        return None  # deleted since: there is nothing to compare with


def _last_moment(features: Artifact) -> datetime:
    return max(map(datetime.fromisoformat, features.manifest.statistics["moments"]))


def _visitors(store: Store, newest: Partition | None, *, count: int) -> list[str]:
    """Some of the users of the newest window, spread over their ids."""
    if newest is None:
        return []
    users = sorted(pc.unique(read_day(store, newest)["user_id"]).drop_null().to_pylist())
    return users[:: max(1, -(-len(users) // count))]


def _online(context: StepContext, users: Sequence[str]) -> Any:
    """What the online store says of them, not aged; the error where it cannot be read."""
    try:
        found = OnlineFeatures(context.settings).read_many(users, now=EPOCH) if users else []
    except FeatureStoreError as error:
        return error
    return {
        user: None if one is None else (one.event_timestamp, one.history_items, one.statistics)
        for user, one in zip(users, found, strict=True)
    }


def _judge_run(
    holdings: held.Holdings, history: Sequence[Mapping[str, Any]], limits: Limits, bounds: Mapping[str, float]
) -> dict[str, Judged]:
    """Each measure of the run, by what the runs of earlier days made of it."""
    judged = {}
    for measure in RUN_MEASURES:
        if measure.name not in holdings.now:
            continue
        expectation, before = Expectation(limits), None
        then = holdings.then[measure.name]
        readings = [Reading(value=v[0], count=v[1]) for one in history if (v := one["values"].get(measure.name))]
        for reading in [*readings, holdings.now[measure.name]]:
            before = judge(
                measure,
                reading,
                expectation=expectation,
                before=before,
                reference=then,
                offset=0.0,
                limits=limits,
                bound=bounds.get(measure.name, measure.bound),
            )
            if before.cause is None and math.isfinite(reading.value):
                expectation.learn(to_scale(measure.scale, reading.value))
            else:
                expectation.skip()
        assert before is not None
        judged[measure.name] = before
    return judged


def _statistics(windows: Sequence[Window], run: Mapping[str, Judged], bundle: Bundle) -> dict[str, Any]:
    """What the DAG, the status and the manifest need to know."""
    newest = windows[-1] if windows else None
    alarms = {**(newest.judged if newest else {}), **run}
    alarms = {name: one for name, one in alarms.items() if one.cause is not None}
    in_a_row = 0
    for window in reversed(windows):
        if not window.alarms:
            break
        in_a_row += 1
    if alarms:
        verdict = "drift"
    elif newest is None or newest.is_learning:
        verdict = "learning"
    else:
        verdict = "quiet"
    return {
        "verdict": verdict,
        "alarms": sorted(alarms),
        "why": _why(alarms),
        "alarmed_in_a_row": max(in_a_row, int(bool(alarms))),
        "window": newest.day.isoformat() if newest else None,
        "windows": len(windows),
        "alarmed_windows": sum(bool(window.alarms) for window in windows),
        "bundle": bundle.sha256,
        "cutoff": bundle.cutoff.isoformat(),
    }


def _why(alarms: Mapping[str, Judged]) -> str:
    """The three furthest out, in words; empty where nothing alarms."""
    if not alarms:
        return ""
    order = {"bound": 0, "window": 1, "lasting": 2}

    def rank(name: str) -> tuple[int, float, str]:
        one = alarms[name]
        assert one.cause is not None
        return order[one.cause], -abs(one.deviation) if math.isfinite(one.deviation) else 0.0, name

    parts = [f"{name} {_said(alarms[name])}" for name in sorted(alarms, key=rank)]
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return "drift: " + ", ".join(parts[:3]) + more


def _said(one: Judged) -> str:
    if one.cause == "lasting":
        direction = "higher" if one.lasting_up >= one.lasting_down else "lower"
        return f"{one.value:.3g}, {direction} for some windows"
    if one.upper is not None and one.value > one.upper:
        return f"{one.value:.3g} above {one.upper:.3g}"
    return f"{one.value:.3g} below {one.lower:.3g}"


def _summary(statistics: Mapping[str, Any], windows: Sequence[Window]) -> str:
    since = f"{len(windows)} days since the cutoff, {statistics['alarmed_windows']} of them alarmed"
    if statistics["verdict"] == "drift":
        return f"{statistics['why']}; {since}"
    if statistics["verdict"] == "learning":
        return f"too few quiet days to judge by yet; {since}"
    return f"quiet: {len(MEASURES)} measures within their limits; {since}"


def _samples(windows: Sequence[Window], run: Mapping[str, Judged], statistics: Mapping[str, Any]) -> list[Sample]:
    judged = {**(windows[-1].judged if windows else {}), **run}
    samples = [Sample("basketweave_drift_alarmed_windows", {}, statistics["alarmed_in_a_row"])]
    for measure in MEASURES:
        if (one := judged.get(measure.name)) is None:
            continue
        labels = {"measure": measure.name}
        samples.append(Sample("basketweave_drift_value", labels, one.value))
        samples.append(Sample("basketweave_drift_alarm", labels, float(one.cause is not None)))
        if (limit := one.nearest_limit) is not None:
            samples.append(Sample("basketweave_drift_threshold", labels, limit))
    return samples


def _category_names(bundle: Bundle) -> pa.Array:
    return pa.array(bundle.items.categories, pa.string())


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


def _state_outside(context: StepContext) -> Any:
    """What else it reads: the newest graph and features, the bundle before, the moment of the online features."""
    pointer = read_pointer(context.store)

    def newest(kind: str) -> str | None:
        artifact = _newest(context.store, kind)
        return artifact.manifest.content_sha256 if artifact else None

    online = FeastHome.of(context.settings).online_moment()
    return {
        "graph": newest("graph"),
        "features": newest("features"),
        "previous": pointer.previous.sha256 if pointer and pointer.previous else None,
        "online": online.isoformat() if online else None,
    }


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
    fingerprint=_state_outside,
    chooses={"bundle": serving_bundle},
)
