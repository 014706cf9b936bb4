"""The gate before deployment: what the evaluation did not promote is not deployed, and the run says so.

`gate` branches to `deploy` or to `not_promoted`, so that the way a run went can be seen in Airflow's own graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from airflow.sdk import XComArg, get_current_context, task

from components.core.artifact import Artifact, ArtifactRef
from components.core.journal import NOT_PROMOTED
from components.core.rollout import barred_sentence
from components.core.settings import load_settings
from components.core.store import Store
from components.orchestration.component import note, task_arguments, task_of
from components.orchestration.run_window import is_backfill


def gate(evaluation: XComArg, *, deploy: XComArg) -> None:
    """Let `deploy` run only when `evaluation` says 'promote', and never in a backfill."""
    settings = load_settings()

    @task.branch(task_id="gate", **task_arguments(settings))
    def decide(ref: dict[str, Any]) -> str:
        refusal = why_not_promoted(ref, dag_run=get_current_context()["dag_run"])
        return NOT_PROMOTED if refusal else task_of(deploy).task_id

    @task(task_id=NOT_PROMOTED, **task_arguments(settings))
    def say(ref: dict[str, Any]) -> str:
        return say_not_promoted(ref)

    ref = cast(Any, evaluation)
    decide(ref) >> [deploy, say(ref)]


def why_not_promoted(ref: Mapping[str, Any], *, dag_run: Any) -> str | None:
    """The reason, one sentence, why the evaluated bundle is not deployed; None: it is."""
    if is_backfill(dag_run):
        return "a backfill remakes the past and never deploys"
    settings = load_settings()
    evaluation = ArtifactRef.model_validate(ref)
    artifact = Artifact.open(Store(settings.artifact_root), evaluation.uri, sha256=evaluation.sha256, kind="evaluation")
    verdict = artifact.manifest.statistics.get("verdict")
    if verdict == "promote":
        judged = [one.sha256 for one in artifact.manifest.inputs if one.kind == "bundle"]
        return next(filter(None, (barred_sentence(artifact.store, sha256) for sha256 in judged)), None)
    # A missing verdict is a refusal too: the gate fails closed.
    failed = ", ".join(artifact.manifest.statistics.get("failed_gates") or ["the evaluation does not say which gate"])
    return f"verdict {verdict or 'missing'}: {failed}"


def say_not_promoted(ref: Mapping[str, Any]) -> str:
    """Put the reason where people look: the run's journal, the task's log, the terminal."""
    dag_run = get_current_context()["dag_run"]
    reason = why_not_promoted(ref, dag_run=dag_run) or "the evaluation has changed since the gate"
    note(dag_run, task=NOT_PROMOTED, state="done", summary=reason, seconds=0.0)
    return reason
