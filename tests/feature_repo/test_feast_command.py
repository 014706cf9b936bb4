"""The plain `feast` command finds the same store and the same definitions as the pipeline."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from feast.repo_config import load_repo_config

from feature_repo.definitions import definitions
from feature_repo.layout import FeastHome
from feature_repo.store import FeatureRepo, repo_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A checkout's feature_repo in a folder where the demo can have left its store."""
    shutil.copytree(ROOT / "feature_repo", tmp_path / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_yaml_file_says_what_the_pipeline_configures(checkout):
    folder = checkout / "feature_repo"
    written = load_repo_config(folder, folder / "feature_store.yaml")
    built = repo_config(FeastHome(folder=checkout / ".basketweave" / "demo" / "feast"))

    assert (folder / written.registry.path).resolve() == Path(built.registry.path)
    assert (folder / written.online_store.path).resolve() == Path(built.online_store.path)
    assert written.online_store.type == built.online_store.type
    assert written.offline_store.type == built.offline_store.type == "duckdb"
    assert written.project == built.project
    assert written.entity_key_serialization_version == built.entity_key_serialization_version


def test_the_command_would_register_the_pipelines_own_definitions(checkout):
    found = runpy.run_path(str(checkout / "feature_repo" / "feast_objects.py"))

    expected = definitions(FeastHome(folder=checkout / ".basketweave" / "demo" / "feast"))
    for wanted in expected.objects:
        assert found[wanted.name] == wanted
    assert found["user_history"].batch_source.path == str(
        checkout / ".basketweave" / "demo" / "feast" / "offline" / "user_history.parquet"
    )


@pytest.mark.slow
def test_the_command_lists_applies_and_reads(checkout, repo, fill, given):
    moment, user_rows = given
    demo = FeatureRepo(FeastHome(folder=checkout / ".basketweave" / "demo" / "feast"))
    fill([user_rows("ann", moment(1), items=["tea"], frequency=3)])
    shutil.copytree(repo.home.folder / "offline", demo.home.folder / "offline")
    demo.apply()
    demo.materialize(moment(1), ["ann"])

    def feast(*arguments):
        command = [str(Path(sys.executable).with_name("feast")), "-c", str(checkout / "feature_repo"), *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    feast("apply")
    assert "recommender_v1" in feast("feature-services", "list")
    assert "3" in feast("get-online-features", "-f", "user_statistics:frequency", "-e", "user_id=ann")
