"""The tasks after `monitor`: a retrain is asked for, by an asset event that carries why, or it is said why not.

The bounds (cool-down, weekly budget) are in components/monitor/retrain.py; a backfill never asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from airflow.sdk import Metadata, XComArg, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from components.core.artifact import Artifact, ArtifactRef
from components.core.pipeline_metrics import Sample, publish
from components.core.settings import Settings, load_settings
from components.core.store import Store
from components.orchestration.component import asset, note, task_arguments
from components.orchestration.pipeline import DRIFT
from components.orchestration.run_window import is_backfill

ASK = "ask_for_retrain"


def ask_for_retrain(monitoring: XComArg) -> None:
    """A task that ends well, with the event, where a retrain is asked for, and is skipped where it is not."""
    settings = load_settings()
    outlet = asset(settings, DRIFT)

    @task(task_id=ASK, outlets=[outlet], **task_arguments(settings))
    def ask(ref: dict[str, Any]) -> Iterator[Any]:
        extra = decide_and_say(ref)
        # Airflow's way to put something beside the event of an outlet.
        yield Metadata(outlet, extra=extra)

    ask(cast(Any, monitoring))


def decide_and_say(ref: Mapping[str, Any]) -> dict[str, Any]:
    """What the event carries; raises AirflowSkipException where no retrain is asked for. The journal has both."""
    from components.monitor.retrain import Decision, decide, read_requests

    settings = load_settings()
    dag_run = get_current_context()["dag_run"]
    started = time.monotonic()
    artifact = open_monitoring(settings, ref)
    store = artifact.store
    if is_backfill(dag_run):
        decision = Decision(asked=False, why="a backfill remakes the past and never retrains")
    else:
        decision = decide(
            store,
            artifact.manifest.statistics,
            as_of=artifact.as_of,
            run_id=dag_run.run_id,
            settings=settings.monitor,
        )
    requests = read_requests(store)
    sample = Sample("basketweave_drift_retrain_requests", {}, len(requests))
    publish(settings, group="retrain", samples=[sample])
    said = f"asked for a retrain: {decision.why}" if decision.asked else f"no retrain: {decision.why}"
    note(dag_run, task=ASK, state="done", summary=said, seconds=time.monotonic() - started)
    if not decision.asked:
        raise AirflowSkipException(said)
    statistics = artifact.manifest.statistics
    return {
        "why": decision.why,
        "alarms": list(statistics["alarms"]),
        "window": statistics["window"],
        "bundle": statistics["bundle"],
        "as_of": _iso(artifact.as_of),
    }


def open_monitoring(settings: Settings, ref: Mapping[str, Any]) -> Artifact:
    given = ArtifactRef.model_validate(ref)
    return Artifact.open(Store(settings.artifact_root), given.uri, sha256=given.sha256, kind="monitoring")


def _iso(moment: datetime) -> str:
    return moment.isoformat()
