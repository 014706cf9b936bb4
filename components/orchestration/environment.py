"""The environment in which Airflow runs: set before its first import, since it reads it then and never again."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

from components.core.libraries import QUIET, THRIFTY
from components.core.settings import Settings, child_environment
from components.core.store import write_file_whole

LOOPBACK = "127.0.0.1"
JWT_SECRET_BYTES = 64


def dags_folder() -> Path:
    """The DAG files beside this package: in a checkout and in an installed wheel alike."""
    return Path(__file__).resolve().parents[2] / "dags"


def airflow_environment(settings: Settings, *, home: Path) -> dict[str, str]:
    """This process's environment with Airflow's home in `home` and these very settings for its tasks."""
    home = home.absolute()
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": _jwt_secret(settings.home.absolute() / "airflow" / "jwt_secret"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # loopback only
        # SQLite gives up on a lock after 5 s by default, and a page or a task then fails on a busy machine.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # `airflow standalone` looks for its own command on the path.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    return THRIFTY | child_environment(settings) | QUIET | own | _statsd(settings)


def _statsd(settings: Settings) -> dict[str, str]:
    """Airflow's own metrics, by UDP to whoever listens."""
    if settings.metrics.statsd_host is None:
        return {}
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": settings.metrics.statsd_host,
        "AIRFLOW__METRICS__STATSD_PORT": str(settings.metrics.statsd_port),
        "AIRFLOW__METRICS__STATSD_PREFIX": "airflow",
    }


def enter(environment: dict[str, str]) -> None:
    """Make `environment` this process's own, variables that it lacks removed."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _jwt_secret(path: Path) -> str:
    """Signs the tokens of this installation's Airflow: made once, readable by its owner alone."""
    if not path.exists():
        write_file_whole(path, secrets.token_hex(JWT_SECRET_BYTES).encode(), mode=0o600)
    return path.read_text()
