"""A project whose bundles are a line of text, and a registry of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.core.settings import Settings, load_settings
from components.core.store import Store


@pytest.fixture(scope="session")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all: MLflow takes a second to make one, and another to open it."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def settings(tmp_path: Path, registry_uri: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # The bundles of this file are a line of text; tests/serving deploys real ones.
    monkeypatch.setattr("components.deploy.step.check_golden", lambda bundle, *, cache: None)
    deploy = {"start_service": False, "model_name": tmp_path.name}
    return load_settings(
        home=tmp_path, project="shop", deploy=deploy, tracking={"uri": registry_uri, "experiment": tmp_path.name}
    )


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.artifact_root)
