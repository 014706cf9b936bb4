from __future__ import annotations

import os
import stat
from pathlib import Path

from components.core.settings import load_settings
from components.orchestration.environment import JWT_SECRET_BYTES, airflow_environment, dags_folder


def test_the_secret_is_long_the_owners_alone_and_made_once(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "shop")
    first = airflow_environment(settings, home=tmp_path / "a")["AIRFLOW__API_AUTH__JWT_SECRET"]
    second = airflow_environment(settings, home=tmp_path / "b")["AIRFLOW__API_AUTH__JWT_SECRET"]
    other = airflow_environment(load_settings(home=tmp_path / "else"), home=tmp_path)["AIRFLOW__API_AUTH__JWT_SECRET"]
    assert first == second != other
    assert len(bytes.fromhex(first)) >= JWT_SECRET_BYTES
    (secret,) = (tmp_path / "shop").rglob("jwt_secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_tasks_read_the_very_settings_of_whoever_started_airflow(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, project="corner-shop", train={"seed": 7}, orchestration={"retries": 0})
    environment = airflow_environment(settings, home=tmp_path / "airflow")
    kept = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment)
        again = load_settings()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    assert (again.project, again.train.seed, again.orchestration.retries) == ("corner-shop", 7, 0)
    assert again.artifact_root == settings.artifact_root


def test_the_dags_lie_beside_the_packages() -> None:
    assert (dags_folder() / "recommender.py").is_file()
