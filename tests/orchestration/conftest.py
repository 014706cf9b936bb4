"""Tiny steps in place of the real ones, and Airflow's database, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_steps import TinySteps


@pytest.fixture(scope="session")
def airflow_database(session_home: Path) -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def tiny_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinySteps:
    """The pipeline's steps are tiny ones, in a project home of the test's own."""
    import components.orchestration.component

    steps = TinySteps()
    monkeypatch.setattr(components.orchestration.component, "load_step", steps)
    monkeypatch.setenv("BASKETWEAVE_HOME", str(tmp_path / "home"))
    return steps


@pytest.fixture
def run_dag(airflow_database: None, tiny_steps: TinySteps, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a DAG in this process; returns Airflow's record of the run."""
    from airflow.dag_processing.dagbag import DagBag

    from components.orchestration.environment import dags_folder

    def run(
        dag: str = "recommender",
        *,
        retries: int = 0,
        conf: dict[str, Any] | None = None,
        settings: dict[str, str] | None = None,
    ) -> Any:
        monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__RETRIES", str(retries))
        monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__RETRY_DELAY_SECONDS", "0")
        for name, value in (settings or {}).items():
            monkeypatch.setenv(name, value)
        bag = DagBag(str(dags_folder()))
        assert bag.import_errors == {}
        return bag.dags[dag].test(logical_date=None, run_conf=conf)

    return run
