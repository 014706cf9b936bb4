"""The real scheduler: killed in mid-run and started again, it ends the run and doubles nothing; then it backfills."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from components.core.artifact import Artifact
from components.core.command import PIPELINE
from components.core.journal import NOT_PROMOTED, last_runs
from components.core.live import read_pointer
from components.core.settings import Settings, load_settings
from components.core.store import Store
from components.orchestration.environment import airflow_environment
from components.orchestration.scheduler import home_folder, start_scheduler, stop_scheduler

HERE = Path(__file__).parent
SIZE = ("--users", "60", "--items", "40", "--days", "18", "--sessions-per-user-day", "0.5", "--seed", "7")
START = "2024-01-01"
PAST_DAYS = ("2024-01-18",)
KINDS = ("events", "clean", "features", "graph", "bundle", "evaluation")
LONG_SECONDS = 900.0
SMALL = {
    "SPLIT": {"window_days": 4, "training_windows": 1},
    "TRAIN": {"max_epochs": 1, "embedding_dim": 8},
    "EVALUATE": {"bootstrap_resamples": 100, "min_users": 5},
    "DEPLOY": {"start_service": False},
    "MONITOR": {"schedule": None},
    "ORCHESTRATION": {"retries": 3, "retry_delay_seconds": 1},
}
# A killed task is noticed by its missing heartbeat: by default after five minutes.
SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
}


def shop_in(home: Path, world: Path) -> Settings:
    small = {name.lower(): values for name, values in SMALL.items()}
    source = {"profile": "contract", "events": f"{world}/events/*.parquet", "catalog": f"{world}/catalog.parquet"}
    return load_settings(home=home, source=source, **small)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    made = [sys.executable, "-m", "components.cli", "simulate", "--out", str(folder), "--start", START, *SIZE]
    subprocess.run(made, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, world: Path) -> Iterator[Settings]:
    """A shop whose scheduler is stopped at the end, whatever came of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SOON, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE / "lenient_gate")}.items():
            patch.setenv(name, value)
        settings = shop_in(tmp_path_factory.mktemp("shop"), world)
        try:
            yield settings
        finally:
            stop_scheduler(settings)


def rows(settings: Settings, query: str) -> list[tuple[str, ...]]:
    """What Airflow's database says."""
    database = home_folder(settings) / "airflow.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        return connection.execute(query).fetchall()


def until(condition: Callable[[], bool], *, what: str, settings: Settings) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        tasks = "SELECT run_id, task_id, state, try_number FROM task_instance"
        assert time.monotonic() < deadline, (what, rows(settings, tasks))
        time.sleep(0.5)


def states(settings: Settings, run_type: str) -> list[tuple[str, str, int]]:
    query = (
        "SELECT task_id, task.state, try_number FROM task_instance task JOIN dag_run USING (dag_id, run_id) "
        f"WHERE dag_id = 'recommender' AND run_type = '{run_type}'"
    )
    return [(task, state, tries) for task, state, tries in rows(settings, query)]


def leave_alone(settings: Settings, *dags: str) -> None:
    """Keep DAGs that wait for an asset of the recommender's from running beside it."""
    environment = airflow_environment(settings, home=home_folder(settings))
    for dag in dags:
        subprocess.run(
            [sys.executable, "-m", "airflow", "dags", "pause", dag, "--yes"],
            env=environment, check=True, capture_output=True, timeout=300,
        )  # fmt: skip


def kill_all_of(session: int) -> None:
    """As a power cut would: every process of the session at once. Returns when none is left."""
    while living := [process for process in psutil.process_iter() if lives_in(session, process)]:
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        time.sleep(0.05)


def lives_in(session: int, process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ProcessLookupError):
        return False


def content(settings: Settings, *, as_of: str) -> dict[str, set[str]]:
    """Content hashes by kind of all artifacts that were judged as of a moment."""
    store = Store(settings.artifact_root)
    moment = datetime.fromisoformat(f"{as_of}T00:00:00+00:00")
    found: dict[str, set[str]] = {}
    for kind in KINDS:
        for path in (Path(settings.artifact_root) / kind).glob("*/manifest.json"):
            artifact = Artifact.open(store, str(path.parent), kind=kind)
            artifact.verify()
            if artifact.as_of == moment:
                found.setdefault(kind, set()).add(artifact.manifest.content_sha256)
    return found


@pytest.mark.slow
def test_a_scheduler_killed_in_mid_run_ends_the_run_when_it_is_started_again(shop: Settings) -> None:
    record = start_scheduler(shop)
    until(lambda: len(rows(shop, "SELECT dag_id FROM dag")) == 3, what="the DAGs are read", settings=shop)
    leave_alone(shop, "monitoring", "rollout")
    until(
        lambda: ("validate", "running", 1) in states(shop, "scheduled"),
        what="the run of the schedule reaches validate",
        settings=shop,
    )
    kill_all_of(record.pid)
    start_scheduler(shop)
    ended = "SELECT state FROM dag_run WHERE dag_id = 'recommender' AND state IN ('success', 'failed')"
    until(lambda: rows(shop, ended) != [], what="the run ends", settings=shop)
    assert rows(shop, "SELECT run_type, state FROM dag_run") == [("scheduled", "success")]
    tries = {task: (state, number) for task, state, number in states(shop, "scheduled")}
    assert {task: state for task, (state, _) in tries.items()} == {
        **dict.fromkeys([*PIPELINE, "gate"], "success"),
        NOT_PROMOTED: "skipped",
    }
    assert tries["ingest"] == ("success", 1)
    assert tries["validate"] == ("success", 2)
    # Nothing doubled: one artifact of each kind, one run in the journal, one version in the registry.
    root = Path(shop.artifact_root)
    assert [len(list((root / kind).glob("*/"))) for kind in (*KINDS, "deployment")] == [1] * 7
    assert list((root / ".staging").iterdir()) == []
    (run,) = last_runs(Store(shop.artifact_root), count=5)
    assert sorted(entry.task for entry in run) == sorted(PIPELINE)
    with closing(sqlite3.connect(shop.home / "mlflow.db")) as registry:
        assert registry.execute("SELECT version FROM model_versions").fetchall() == [(1,)]


@pytest.mark.slow
def test_a_backfill_of_past_days_equals_the_days_own_runs_and_deploys_nothing(
    shop: Settings, world: Path, tmp_path: Path
) -> None:
    store = Store(shop.artifact_root)
    before = read_pointer(store)
    assert before is not None
    first, last = PAST_DAYS[0], PAST_DAYS[-1]
    command = ["backfill", "create", "--dag-id", "recommender", "--from-date", first, "--to-date", last]
    environment = airflow_environment(shop, home=home_folder(shop))
    subprocess.run(
        [sys.executable, "-m", "airflow", *command], env=environment, check=True, capture_output=True, timeout=300
    )
    ended = (
        "SELECT state FROM dag_run "
        "WHERE dag_id = 'recommender' AND run_type = 'backfill' AND state IN ('success', 'failed')"
    )
    until(lambda: len(rows(shop, ended)) == len(PAST_DAYS), what="the backfill ends", settings=shop)
    failures = [entry for run in last_runs(store, count=len(PAST_DAYS)) for entry in run if entry.state == "failed"]
    assert [state for (state,) in rows(shop, ended)] == ["success"] * len(PAST_DAYS), failures
    stop_scheduler(shop)
    deploys = {state for task, state, _ in states(shop, "backfill") if task == "deploy"}
    assert deploys == {"skipped"}
    assert read_pointer(store) == before
    assert len(list((Path(shop.artifact_root) / "deployment").glob("*/"))) == 1
    reasons = {
        entry.summary for run in last_runs(store, count=len(PAST_DAYS)) for entry in run if entry.task == NOT_PROMOTED
    }
    assert reasons == {"a backfill remakes the past and never deploys"}

    for day in PAST_DAYS:
        own = shop_in(tmp_path / day, world)
        alone = airflow_environment(own, home=tmp_path / "airflow")
        for number, step in enumerate(PIPELINE[:-1]):
            as_of = ["--as-of", day] if number == 0 else []
            done = subprocess.run(
                [sys.executable, "-m", f"components.{step}", *as_of],
                env=alone, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        expected = content(own, as_of=day)
        assert {kind: len(hashes) for kind, hashes in expected.items()} == dict.fromkeys(KINDS, 1)
        assert content(shop, as_of=day) == expected
