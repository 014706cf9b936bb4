"""What every test shares: an environment of its own, set before any library is imported, and nothing of the user's."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
