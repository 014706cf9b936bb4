"""The DAG `rollout` under the real scheduler: the asset of `deploy` starts it, and a person says yes or no."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_api import call, tell_asset, until
from staged_shop import champion_and_challenger, counted, observe, staged
from text_bundles import bundle_and_evaluation, deploy

from components.core.artifact import Manifest
from components.core.live import read_pointer
from components.core.rollout import read_barred, read_rollout
from components.core.settings import Settings, load_settings
from components.core.store import Store
from components.deploy.registry import CHALLENGER, CHAMPION, Registry
from components.orchestration.scheduler import SchedulerRecord, start_scheduler, stop_scheduler

pytestmark = pytest.mark.slow

READING_SECONDS = 5.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("components.deploy.step.check_golden", lambda bundle, *, cache: None)
    made = load_settings(
        home=tmp_path,
        source={"profile": "contract", "events": str(tmp_path / "missing.parquet")},
        orchestration={"retries": 5, "retry_delay_seconds": 1, "schedule": "0 0 1 1 *"},
        monitor={"schedule": "0 0 1 1 *"},
        deploy={"start_service": False, "rollout": "staged"},
    )
    return staged(made, approval=True, poll_seconds=10)


@pytest.fixture
def service(settings: Settings) -> Iterator[None]:
    """A stand-in that has seen enough, and nothing wrong, in whatever stage it is told."""
    fine = {"challenger": counted(requests=500), "control": counted(requests=500), "champion": counted(requests=500)}
    has_ended = threading.Event()

    def serve() -> None:
        store = Store(settings.artifact_root)
        while not has_ended.wait(0.1):
            if (rollout := read_rollout(store)) is not None:
                observe(settings, rollout.step, fine)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    has_ended.set()
    thread.join()


def served(store: Store) -> str:
    pointer = read_pointer(store)
    assert pointer is not None
    return pointer.bundle.sha256


def runs(record: SchedulerRecord) -> list[dict[str, Any]]:
    """The DAG's runs, the latest first."""
    found: list[dict[str, Any]] = call(record, "dags/rollout/dagRuns?order_by=-run_after")["dag_runs"]
    return found


def decide(record: SchedulerRecord, option: str, *, run: int) -> dict[str, str]:
    """Say yes or no whenever the question waits, until the DAG's run of this number has ended; each task's state."""

    def has_ended() -> str | None:
        found = call(record, "dags/~/dagRuns/~/hitlDetails?response_received=false")["hitl_details"]
        for question in (one for one in found if one["task_instance"]["state"] == "awaiting_input"):
            # A person reads before the answer. Airflow takes a task for lost, and asks again, that is due before it was
            # told that the task had begun to wait.
            time.sleep(READING_SECONDS)
            assert "production" in question["subject"]
            task = question["task_instance"]
            where = f"dags/rollout/dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/-1/hitlDetails"
            call(record, where, {"chosen_options": [option]}, method="PATCH")
        latest, *earlier = runs(record) or [{}]
        is_over = len(earlier) == run - 1 and latest.get("state") in ("success", "failed")
        return latest["dag_run_id"] if is_over else None

    run_id = until(has_ended, what=f"run {run} ends")
    found = call(record, f"dags/rollout/dagRuns/{run_id}/taskInstances")["task_instances"]
    return {task["task_id"]: task["state"] for task in found}


def test_who_is_refused_goes_whole_and_who_is_approved_serves(settings: Settings, service: None) -> None:
    champion, refused = champion_and_challenger(settings)
    store, registry = Store(settings.artifact_root), Registry(settings)
    record = start_scheduler(settings)
    try:
        tell_asset(record, "basketweave://demo/deployment")
        ended = decide(record, "Reject", run=1)
        passed = dict.fromkeys(("begin", "shadow", "canary_10", "canary_50", "approve"), "success")
        assert ended == {**passed, "production": "skipped", "watch": "skipped", "send_away": "success"}
        assert served(store) == champion.content_sha256
        assert read_rollout(store) is None, "nobody is left with what was refused"
        assert "not approved" in read_barred(store)[refused.content_sha256].reason
        assert registry.holder(CHALLENGER) is None

        approved = offer(settings, "c")
        tell_asset(record, "basketweave://demo/deployment")
        ended = decide(record, "Approve", run=2)
        assert ended == {**passed, "production": "success", "watch": "success", "send_away": "skipped"}
        assert served(store) == approved.content_sha256
        assert registry.holder(CHAMPION) == registry.find(approved.content_sha256)
        assert read_rollout(store) is None
    finally:
        stop_scheduler(settings)


def offer(settings: Settings, text: str) -> Manifest:
    """Another bundle that waits for its rollout."""
    bundle, evaluation = bundle_and_evaluation(settings, text)
    deploy(settings, bundle, evaluation, f"run-{text}")
    return bundle
