"""A step as an Airflow task: `component("train", inputs=[clean, features])`.

In process, the task calls `components.core.step.execute`; as a pod, it runs the step's own command. Either way tasks
hand each other one artifact reference (kind, uri, sha256, rows), and the step is imported only when it runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from airflow.sdk import Asset, XComArg, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from components.core.artifact import ArtifactRef
from components.core.clock import parse_time, wall_clock
from components.core.command import KINDS, dump_ref, load_step
from components.core.errors import BasketweaveError, StopError
from components.core.journal import TaskEntry, TaskState, run_folder, write_entry
from components.core.settings import Settings, load_settings
from components.core.store import Store
from components.orchestration.run_window import run_as_of, why_of
from components.orchestration.watcher import current_watcher

logger = logging.getLogger(__name__)


def component(name: str, *, inputs: Sequence[XComArg] = ()) -> XComArg:
    """The step `name` as a task of the DAG around the call; returns its output, the inputs of others.

    The first step of a pipeline, which has no inputs, is the one that is told `as_of` and `day`; the others take
    their time from what they read.
    """
    settings = load_settings()
    if settings.orchestration.mode == "kubernetes":
        from components.orchestration.pod import pod_component

        return pod_component(name, inputs=inputs, settings=settings)

    @task(task_id=name, outlets=[asset(settings, KINDS[name])], **task_arguments(settings))
    def run(refs: list[dict[str, Any]]) -> dict[str, Any]:
        return run_in_process(name, refs)

    return run(cast(Any, list(inputs)))


def task_of(output: XComArg) -> Any:
    """The task whose output it is."""
    operator, _ = next(output.iter_references())
    return operator


def asset(settings: Settings, kind: str) -> Asset:
    """An artifact kind of a project as Airflow's asset, which other DAGs may wait for."""
    return Asset(name=f"{settings.project}/{kind}", uri=f"basketweave://{settings.project}/{kind}")


def task_arguments(settings: Settings) -> dict[str, Any]:
    """What every task of ours shares, whatever runs it."""
    orchestration = settings.orchestration
    return {
        "retries": orchestration.retries,
        "retry_delay": timedelta(seconds=orchestration.retry_delay_seconds),
        "execution_timeout": timedelta(minutes=orchestration.step_timeout_minutes),
    }


def run_in_process(name: str, refs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Execute a step inside the running task; returns its reference as plain values, for XCom.

    A `StopError` fails the task for good; after anything else Airflow may try again.
    """
    from components.core.step import execute

    settings = load_settings()
    context = get_current_context()
    dag_run = context["dag_run"]
    inputs = {ref.kind: ref for ref in map(ArtifactRef.model_validate, refs)}
    watcher = current_watcher()
    watcher.started(name)
    started = time.monotonic()
    try:
        execution = execute(
            load_step(name),
            settings=settings,
            inputs=inputs,
            run_id=dag_run.run_id,
            as_of=None if inputs else _as_of(context, settings),
            options={} if inputs else _options(context),
            progress=watcher.progress,
            # A backfill has several runs at once: each waits for its turn at a step, and loses no try.
            wait_seconds=settings.orchestration.step_timeout_minutes * 60,
        )
    except KeyboardInterrupt:
        sentence = "it was interrupted; what is finished will be reused"
        note(dag_run, task=name, state="failed", summary=sentence, seconds=time.monotonic() - started)
        raise
    except Exception as error:
        sentence = str(error) if isinstance(error, BasketweaveError) else f"{type(error).__name__}: {error}"
        note(dag_run, task=name, state="failed", summary=sentence, seconds=time.monotonic() - started)
        if isinstance(error, StopError):
            raise AirflowFailException(str(error)) from error
        raise
    state: TaskState = "reused" if execution.is_reused else "done"
    note(dag_run, task=name, state=state, summary=execution.manifest.summary, seconds=time.monotonic() - started)
    return dump_ref(execution.ref)


def note(dag_run: Any, *, task: str, state: TaskState, summary: str, seconds: float) -> None:
    """Tell how a task ended to those who look on and to the run's journal."""
    entry = TaskEntry(
        run_id=dag_run.run_id,
        task=task,
        state=state,
        summary=summary,
        seconds=seconds,
        finished_at=wall_clock(),
        why=why_of(dag_run),
    )
    current_watcher().finished(entry)
    store = Store(load_settings().artifact_root)
    try:
        folder = run_folder(store, run_id=dag_run.run_id, started_at=dag_run.start_date or dag_run.run_after)
        write_entry(store, folder, entry)
    except OSError as error:
        # A full disk, most likely, of which the task's own error speaks; what is finished is in the store without it.
        logger.warning("The journal has no entry of %s: %s", task, error)


def _as_of(context: Mapping[str, Any], settings: Settings) -> datetime | None:
    given = context["params"].get("as_of")
    return parse_time(given) if given else run_as_of(context["dag_run"], settings)


def _options(context: Mapping[str, Any]) -> dict[str, Any]:
    day = context["params"].get("day")
    return {"day": day} if day else {}
