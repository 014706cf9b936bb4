"""What every test shares: an environment of its own, set before any library is imported, and nothing of the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import prometheus_client.values  # noqa: F401  (first: it chooses here whether metrics lie in files, which Feast turns on)
import pytest

from components.core.settings import Settings, load_settings

LENIENT_RUN = Path(__file__).parent / "pipeline" / "lenient_run.py"
LONGEST = ("cli", "ingest", "orchestration", "pipeline", "serving", "train")
SESSION_HOME = Path(tempfile.mkdtemp(prefix="basketweave-tests-"))

for _name in [
    name for name in os.environ if name.startswith(("AIRFLOW", "BASKETWEAVE_")) and name != "BASKETWEAVE_DATA"
]:
    del os.environ[_name]
# Airflow reads these at its first import, wherever in the suite that is.
os.environ.update(
    {
        "AIRFLOW_HOME": str(SESSION_HOME / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1] / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{SESSION_HOME / 'airflow' / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(SESSION_HOME / "airflow" / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "BASKETWEAVE_HOME": str(SESSION_HOME / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "DGLBACKEND": "pytorch",
        "DO_NOT_TRACK": "true",
        "FEAST_USAGE": "False",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
)
os.environ.pop(
    "PYTHONDONTWRITEBYTECODE", None
)  # the processes that tests start would compile their libraries each time


@pytest.fixture(scope="session", autouse=True)
def session_home() -> Iterator[Path]:
    """The folder of everything that the suite leaves; gone at its end."""
    yield SESSION_HOME
    shutil.rmtree(SESSION_HOME, ignore_errors=True)


@dataclass(frozen=True)
class PipelineRun:
    """A whole run of the real pipeline on a small made-up shop, and the service that it left."""

    world: Path
    home: Path
    environment: dict[str, str]
    arguments: list[str]
    first: subprocess.CompletedProcess[str]

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.home, project="shop")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`basketweave …` in this shop's home, as a process of its own."""
        return subprocess.run(
            [sys.executable, str(LENIENT_RUN), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def pipeline_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PipelineRun]:
    """The whole pipeline once, from the simulator's log to a service on loopback; about a minute, shared by all."""
    folder = tmp_path_factory.mktemp("pipeline")
    world, home = folder / "world", folder / "home"
    small = {
        "SPLIT__WINDOW_DAYS": "14",
        "SPLIT__TRAINING_WINDOWS": "1",
        "TRAIN__MAX_EPOCHS": "1",
        "TRAIN__EMBEDDING_DIM": "16",
        "EVALUATE__BOOTSTRAP_RESAMPLES": "200",
    }
    environment = {**os.environ, "BASKETWEAVE_HOME": str(home)}
    environment |= {f"BASKETWEAVE_{name}": value for name, value in small.items()}
    size = ["--users", "300", "--items", "200", "--days", "60", "--sessions-per-user-day", "0.3", "--seed", "7"]
    made = [sys.executable, "-m", "components.cli", "simulate", "--out", str(world), *size]
    subprocess.run(made, check=True, capture_output=True, env=environment)
    arguments = ["run", "--events", f"{world}/events/*.parquet", "--catalog", f"{world}/catalog.parquet"]
    command = [sys.executable, str(LENIENT_RUN), *arguments]
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    run = PipelineRun(world=world, home=home, environment=environment, arguments=arguments, first=first)
    try:
        assert first.returncode == 0, first.stdout + first.stderr
        yield run
    finally:
        run.command("stop")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of the long tests first: two processes that share the files then end at about the same time."""
    items.sort(key=lambda item: Path(item.path).parent.name not in LONGEST)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Under CI=true a test may be skipped for want of the data of BASKETWEAVE_DATA, and for nothing else."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if not report.skipped or os.environ.get("CI") != "true" or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
    if "BASKETWEAVE_DATA" not in reason:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} may not be skipped under CI=true. {reason}"
