"""The DAG `monitoring` run in this process, with tiny steps: what asks for a retrain, by an event that carries why."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select
from tiny_steps import DRIFT, QUIET, TinySteps, task_states

from components.core.journal import last_runs
from components.core.settings import load_settings
from components.core.store import Store
from components.orchestration.run_window import why_of

RunDag = Callable[..., Any]


def drift_events(run_id: str) -> list[dict[str, Any]]:
    """What the run's events of the asset `drift` carried."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session

    with create_session() as session:
        wanted = select(AssetEvent.extra).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
        wanted = wanted.where(AssetModel.uri == "basketweave://demo/drift", AssetEvent.source_run_id == run_id)
        return list(session.scalars(wanted))


def said() -> tuple[str, str]:
    (entries,) = last_runs(Store(load_settings().artifact_root), count=1)
    (entry,) = [entry for entry in entries if entry.task == "ask_for_retrain"]
    return entry.state, entry.summary


def test_a_quiet_window_asks_for_nothing_and_says_so(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    tiny_steps.drift = QUIET
    dag_run = run_dag("monitoring")
    assert (dag_run.state, task_states(dag_run)["ask_for_retrain"]) == ("success", "skipped")
    assert drift_events(dag_run.run_id) == []
    assert said() == ("done", "no retrain: the newest window is quiet")
    assert tiny_steps.calls("train") == 0


def test_drift_asks_by_an_event_that_carries_why(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    tiny_steps.drift = DRIFT
    dag_run = run_dag("monitoring")
    assert task_states(dag_run)["ask_for_retrain"] == "success"
    (extra,) = drift_events(dag_run.run_id)
    assert (extra["why"], extra["alarms"]) == (DRIFT["why"], ["sessions"])
    assert said() == ("done", f"asked for a retrain: {DRIFT['why']}")


def test_a_second_drift_within_the_cool_down_asks_for_nothing(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    tiny_steps.drift = DRIFT
    run_dag("monitoring")
    again = run_dag("monitoring")
    assert task_states(again)["ask_for_retrain"] == "skipped"
    assert drift_events(again.run_id) == []
    assert "less than 2 days away" in said()[1]


def test_monitoring_reads_the_log_as_of_the_run(run_dag: RunDag, tiny_steps: TinySteps) -> None:
    dag_run = run_dag("monitoring", settings={"BASKETWEAVE_ORCHESTRATION__AS_OF": "schedule"})
    assert tiny_steps.contexts["monitor"][0].as_of == dag_run.run_after
    assert set(tiny_steps.contexts["monitor"][0].inputs) == {"clean"}


def test_a_run_says_what_asked_for_it() -> None:
    event = SimpleNamespace(extra={"why": "drift: sessions"})
    assert why_of(SimpleNamespace(conf={}, consumed_asset_events=[event])) == "drift: sessions"
    assert why_of(SimpleNamespace(conf={"why": "alert: Fallbacks"}, consumed_asset_events=[event])) == (
        "alert: Fallbacks"
    )
    assert why_of(SimpleNamespace(conf=None, consumed_asset_events=[])) is None


@pytest.mark.parametrize(
    ("cron", "retrain", "kind"),
    [
        ("@daily", True, "AssetOrTimeSchedule"),
        ("0 4 * * 1", True, "AssetOrTimeSchedule"),
        ("@daily", False, "CronTriggerTimetable"),
        (None, True, "AssetTriggeredTimetable"),
        (None, False, "NullTimetable"),
        ("@once", True, "OnceTimetable"),
    ],
)
def test_the_recommender_waits_for_its_schedule_or_for_drift(
    cron: str | None, retrain: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.orchestration.pipeline import pipeline

    orchestration = "{}" if cron is None else f'{{"schedule": "{cron}"}}'
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION", '{"schedule": null}' if cron is None else orchestration)
    monkeypatch.setenv("BASKETWEAVE_MONITOR__RETRAIN", str(retrain))
    assert type(pipeline("recommender", file=__file__, doc="A test.").timetable).__name__ == kind


def test_as_a_pod_the_monitor_is_given_the_log_and_finds_the_serving_bundle_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, airflow_database: None
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from components.orchestration.environment import dags_folder

    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__MODE", "kubernetes")
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__IMAGE", "registry.example/basketweave:1")
    bag = DagBag(str(dags_folder() / "monitoring.py"))
    assert bag.import_errors == {}
    dag = bag.dags["monitoring"]
    monitor = dag.get_task("monitor")
    assert monitor.cmds == ["python", "-m", "components.monitor"]
    assert monitor.arguments.count("--input") == 1
    assert "task_ids='validate'" in monitor.arguments[monitor.arguments.index("--input") + 1]
    assert sorted(dag.get_task("ask_for_retrain").upstream_task_ids) == ["monitor"]
