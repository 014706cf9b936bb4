"""The status page: what serves, how the last runs went, what has drifted, and what wants a person's attention.

Everything is read from the artifact store, so any worker on any machine tells the same. A record that cannot be read
becomes a sentence on the page, never an error of it: a status page must answer when things are broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import FileResponse

from components.core.artifact import Artifact, Manifest
from components.core.clock import wall_clock
from components.core.command import PIPELINE
from components.core.errors import BasketweaveError
from components.core.journal import NOT_PROMOTED, TaskEntry, last_runs
from components.core.live import Pointer, read_pointer
from components.core.rollout import Bar, read_barred, read_rollout
from components.core.settings import Settings
from components.core.step import latest
from components.core.store import Store
from components.core.usage import StepUsage, usage_of_runs
from serving.routes import errors
from serving.security import route_for
from serving.status_answer import Bundle, Drift, Evaluation, Measure, Rows, Run, Status, Task

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "pages" / "status.html"
MOST_REASONS = 5
DRIFT = "monitoring"
# The task by which a run of the DAG `monitoring` is known, and how many runs are read for each that is shown.
WATCHING, READ_FOR_EACH = "monitor", 4
T = TypeVar("T")

page = APIRouter()
status = APIRouter(responses=errors(401, 403, 422, 429), route_class=route_for("recommend"))


@page.get("/status", include_in_schema=False)
async def status_page() -> FileResponse:
    return FileResponse(PAGE, media_type="text/html")


@status.get("/status.json")
def status_json(
    request: Request, runs: Annotated[int, Query(ge=1, le=50, description="How many of the last runs.")] = 8
) -> Status:
    """What serves, the last runs, data, the gate's verdict and drift, as the artifact store has them."""
    state = request.app.state.service
    settings: Settings = state.settings
    current = state.current
    return read_status(
        settings,
        is_ready=current is not None,
        reason=state.reason,
        workers=state.workers(),
        loaded_at=state.loaded_at,
        num_runs=runs,
    )


def read_status(
    settings: Settings,
    *,
    is_ready: bool,
    reason: str | None,
    workers: Mapping[str, int],
    loaded_at: datetime | None,
    num_runs: int,
) -> Status:
    """Put the page's content together from the artifact store and what the worker says of itself."""
    store = Store(settings.artifact_root)
    unreadable: list[str] = []

    def read(what: str, find: Callable[[], T], otherwise: T) -> T:
        try:
            return find()
        except (BasketweaveError, OSError, ValueError, KeyError) as error:
            logger.warning("The status page goes without %s: %s", what, error)
            unreadable.append(f"{what} cannot be read: {error}" if isinstance(error, BasketweaveError) else what)
            return otherwise

    pointer = read("The deploy pointer", lambda: read_pointer(store), None)
    rollout = read("The rollout", lambda: read_rollout(store), None)
    nothing: Mapping[str, Bar] = {}
    barred = read("The barred bundles", lambda: read_barred(store), nothing)
    clean, evaluation, drift = (_latest(store, kind) for kind in ("clean", "evaluation", DRIFT))
    bundle = None if pointer is None else read("The live bundle", lambda: _bundle(store, pointer), None)
    no_run: Sequence[Run] = ()
    runs = read("The journal of runs", lambda: _runs(store, settings, num_runs), no_run)
    found = Status(
        project=settings.project,
        now=wall_clock(),
        is_ready=is_ready,
        reason=reason,
        workers=dict(workers),
        loaded_at=loaded_at,
        bundle=bundle,
        stage="production" if rollout is None else rollout.stage,
        challenger=None if rollout is None else rollout.challenger.sha256,
        share=None if rollout is None else rollout.share,
        barred={sha256: why.reason for sha256, why in barred.items()},
        runs=runs,
        currency=settings.metrics.currency,
        rows=None if clean is None else _rows(clean),
        evaluation=None if evaluation is None else _evaluation(evaluation),
        drift=None if drift is None else _drift(drift),
        attention=[],
    )
    return found.model_copy(update={"attention": [*_attention(found), *unreadable]})


def _attention(status: Status) -> list[str]:
    """Sentences, the most urgent first; empty: all is well."""
    found = []
    if not status.is_ready:
        found.append(f"No bundle is loaded. {status.reason or ''}".strip())
    elif status.reason:
        found.append(status.reason)
    if status.bundle is not None and len(status.workers) > 1 and status.stage == "production":
        found.append("Workers answer with different bundles: one of them has not followed the pointer yet.")
    ended = next((run for run in status.runs if run.outcome not in ("done", "unfinished")), None)
    if ended is not None and ended.outcome == "failed":
        found.append(f"The last run failed: {ended.sentence}")
    if status.evaluation is not None and status.evaluation.verdict != "promote":
        failed = ", ".join(status.evaluation.failed_gates) or "no gate is named"
        found.append(f"The newest model was not promoted ({status.evaluation.verdict}): {failed}.")
    if status.drift is not None and (alarms := [one.name for one in status.drift.measures if one.is_alarm]):
        found.append(f"Drift: {', '.join(alarms)}.")
    return found


def _bundle(store: Store, pointer: Pointer) -> Bundle:
    manifest = _open(store, pointer.bundle.uri)
    cutoff = None
    if manifest is not None:
        described = store.read_json(f"{store.relative(manifest.uri)}/bundle.json")
        cutoff = datetime.fromisoformat(described["cutoff"])
    return Bundle(
        sha256=pointer.bundle.sha256,
        items=None if manifest is None else manifest.rows,
        cutoff=cutoff,
        as_of=None if manifest is None else manifest.as_of,
        since=pointer.moved_at,
        run_id=pointer.run_id,
        previous=None if pointer.previous is None else pointer.previous.sha256,
    )


def _runs(store: Store, settings: Settings, count: int) -> Sequence[Run]:
    """The newest runs. Of those that look for drift, hourly by default, the newest alone, or nobody saw the others."""
    usage = usage_of_runs(store)
    found: list[Run] = []
    has_watching = False
    for entries in last_runs(store, count=READ_FOR_EACH * count):
        is_watching = any(entry.task == WATCHING for entry in entries)
        if entries and not (is_watching and has_watching):
            found.append(_run(entries, usage, settings))
        has_watching = has_watching or is_watching
    return found[:count]


def _run(entries: Sequence[TaskEntry], usage: Mapping[str, Sequence[StepUsage]], settings: Settings) -> Run:
    states = {entry.task: entry for entry in entries}
    failed = next((entry for entry in entries if entry.state == "failed"), None)
    used = usage.get(entries[0].run_id, ())
    costs = [cost for step in used if (cost := step.cost(settings.metrics)) is not None]
    if failed is not None:
        outcome, sentence = "failed", f"{failed.task}: {failed.summary}"
    elif NOT_PROMOTED in states:
        outcome, sentence = "not promoted", states[NOT_PROMOTED].summary
    elif "deploy" in states:
        outcome, sentence = "deployed", states["deploy"].summary
    else:
        is_over = not set(states) & set(PIPELINE) or WATCHING in states
        outcome, sentence = "done" if is_over else "unfinished", entries[-1].summary
    return Run(
        run_id=entries[0].run_id,
        ended_at=max(entry.finished_at for entry in entries),
        outcome=outcome,
        sentence=sentence,
        seconds=sum(entry.seconds for entry in entries),
        cpu_seconds=sum(step.cpu_seconds for step in used) if used else None,
        cost=sum(costs) if costs else None,
        why=entries[0].why,
        tasks=[Task(task=e.task, state=e.state, summary=e.summary, seconds=e.seconds) for e in entries],
    )


def _rows(clean: Manifest) -> Rows:
    rows: Mapping[str, int] = clean.statistics.get("rows") or {}
    reasons: Mapping[str, int] = clean.statistics.get("quarantined_by_reason") or {}
    largest = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_REASONS]
    return Rows(kept=rows.get("kept", clean.rows), quarantined=rows.get("quarantined", 0), reasons=dict(largest))


def _evaluation(evaluation: Manifest) -> Evaluation:
    figures = evaluation.statistics
    return Evaluation(
        verdict=figures.get("verdict") or "missing",
        failed_gates=figures.get("failed_gates") or [],
        summary=evaluation.summary,
        recall=figures.get("recall"),
        best_baseline=figures.get("best_baseline"),
        best_baseline_recall=figures.get("best_baseline_recall"),
    )


def _drift(drift: Manifest) -> Drift:
    """The measures are the samples that the monitor tells Prometheus."""
    values: dict[str, dict[str, float]] = {}
    for sample in drift.samples:
        if (measure := sample.labels.get("measure")) is not None:
            values.setdefault(measure, {})[sample.name.removeprefix("basketweave_drift_")] = sample.value
    measures = [
        Measure(name=name, value=one["value"], limit=one.get("threshold"), is_alarm=bool(one.get("alarm", 0.0)))
        for name, one in values.items()
        if "value" in one
    ]
    return Drift(summary=drift.summary, as_of=drift.as_of, measures=measures)


def _latest(store: Store, kind: str) -> Manifest | None:
    try:
        return _open(store, latest(store, kind).uri)
    except BasketweaveError:
        return None


def _open(store: Store, uri: str) -> Manifest | None:
    try:
        return Artifact.open(store, uri).manifest
    except BasketweaveError:
        return None


def include_status(app: FastAPI) -> None:
    """Put the page and its data into an app."""
    app.include_router(page)
    app.include_router(status)
