"""The DAG run in this process, with tiny steps: order, exchange, retries, gate, parameters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tiny_steps import AS_OF, WIRING, TinySteps, task_states

from components.core.errors import BusyError, ContractError
from components.core.journal import NOT_PROMOTED, last_runs
from components.core.settings import load_settings
from components.core.store import Store

RunDag = Callable[..., Any]


def journal() -> dict[str, tuple[str, str]]:
    (entries,) = last_runs(Store(load_settings().artifact_root), count=1)
    return {entry.task: (entry.state, entry.summary) for entry in entries}


def test_a_run_without_logical_date_goes_from_log_to_deployment(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    dag_run = run_dag()
    assert dag_run.logical_date is None
    states = task_states(dag_run)
    assert states.pop(NOT_PROMOTED) == "skipped"
    assert set(states.values()) == {"success"}
    assert {name: tiny_steps.calls(name) for name in WIRING} == dict.fromkeys(WIRING, 1)
    for name, (_, kinds) in WIRING.items():
        assert set(tiny_steps.contexts[name][0].inputs) == set(kinds)
    assert journal() == {name: ("done", f"{name} is done") for name in WIRING}


def test_tasks_exchange_one_reference_and_nothing_else(run_dag: RunDag) -> None:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    dag_run = run_dag()
    with create_session() as session:
        rows = session.execute(
            select(XComModel.task_id, XComModel.value).where(
                XComModel.run_id == dag_run.run_id, XComModel.key == "return_value"
            )
        ).all()
    values = dict(rows)
    assert set(values) == set(WIRING)
    for name, (kind, _) in WIRING.items():
        assert set(values[name]) == {"kind", "uri", "sha256", "rows"}
        assert values[name]["kind"] == kind
        assert values[name]["rows"] == len(name)


def test_a_second_run_reuses_every_finished_step(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    run_dag()
    run_dag()
    assert {name: tiny_steps.calls(name) for name in WIRING} == dict.fromkeys(WIRING, 1)
    assert {state for state, _ in journal().values()} == {"reused"}


def test_the_first_step_alone_is_told_as_of_and_day(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    run_dag(conf={"as_of": "2024-02-10", "day": "2024-02-09"})
    (ingest,) = tiny_steps.contexts["ingest"]
    assert ingest.as_of == datetime(2024, 2, 10, tzinfo=UTC)
    assert ingest.options == {"day": "2024-02-09"}
    (validate,) = tiny_steps.contexts["validate"]
    assert validate.as_of == datetime(2024, 2, 10, tzinfo=UTC)
    assert validate.options == {}


def test_as_of_comes_from_the_log_where_nobody_says_it(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    run_dag()
    assert tiny_steps.contexts["ingest"][0].as_of is None
    assert tiny_steps.contexts["train"][0].as_of == AS_OF


def test_a_live_log_is_judged_as_of_the_schedule(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    dag_run = run_dag(settings={"BASKETWEAVE_ORCHESTRATION__AS_OF": "schedule"})
    assert tiny_steps.contexts["ingest"][0].as_of == dag_run.run_after


def test_a_parameter_that_breaks_its_schema_fails_before_the_first_step(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError, match="param day: 'yesterday' does not match"):
        run_dag(conf={"day": "yesterday"})
    assert tiny_steps.calls("ingest") == 0


def test_what_a_retry_cannot_help_is_not_retried(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    tiny_steps.errors["validate"] = lambda call: ContractError("Every price is negative. Check the source's mapping.")
    dag_run = run_dag(retries=2)
    assert dag_run.state == "failed"
    assert tiny_steps.calls("validate") == 1
    assert task_states(dag_run)["features"] == "upstream_failed"
    assert journal()["validate"] == ("failed", "Every price is negative. Check the source's mapping.")


@pytest.mark.parametrize("error", [BusyError("Another process is ingesting."), OSError("disk")])
def test_what_may_pass_is_tried_again(run_dag: RunDag, tiny_steps: TinySteps, error: Exception) -> None:
    tiny_steps.errors["ingest"] = lambda call: error if call < 3 else None
    dag_run = run_dag(retries=2)
    assert dag_run.state == "success"
    assert tiny_steps.calls("ingest") == 3
    assert journal()["ingest"][0] == "done"


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("reject", "verdict reject: beats popularity, enough users"),
        ("insufficient", "verdict insufficient: beats popularity, enough users"),
        (None, "verdict missing: the evaluation does not say which gate"),
    ],
)
def test_what_the_gate_refuses_is_not_deployed_and_the_run_says_so(
    run_dag: RunDag, tiny_steps: TinySteps, verdict: str | None, reason: str
) -> None:
    tiny_steps.verdict = verdict
    dag_run = run_dag()
    states = task_states(dag_run)
    assert (dag_run.state, states["deploy"], states[NOT_PROMOTED]) == ("success", "skipped", "success")
    assert tiny_steps.calls("deploy") == 0
    assert journal()[NOT_PROMOTED] == ("done", reason)


def test_an_evaluation_changed_on_disk_is_not_believed(run_dag: RunDag, tiny_steps: TinySteps, tmp_path: Path) -> None:
    from components.core.errors import ArtifactError
    from components.core.step import latest
    from components.orchestration.gate import why_not_promoted

    run_dag()
    evaluation = latest(Store(load_settings().artifact_root), "evaluation")

    class Manual:
        run_type = "manual"

    assert why_not_promoted(evaluation.model_dump(), dag_run=Manual) is None
    with pytest.raises(ArtifactError, match="content hash"):
        why_not_promoted({**evaluation.model_dump(), "sha256": "0" * 64}, dag_run=Manual)


def test_a_backfill_never_deploys(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    from airflow.utils.types import DagRunType

    from components.core.step import latest
    from components.orchestration.gate import why_not_promoted

    run_dag()
    evaluation = latest(Store(load_settings().artifact_root), "evaluation")

    class Backfill:
        run_type = DagRunType.BACKFILL_JOB

    assert why_not_promoted(evaluation.model_dump(), dag_run=Backfill) == (
        "a backfill remakes the past and never deploys"
    )
