"""Helm, and the chart rendered by it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import missing

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "basketweave"
CI_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
Manifests = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of a Helm CLI. Where it can neither be found nor fetched, a test is skipped, and fails in CI."""
    found = subprocess.run([ROOT / "charts" / "get_helm.sh"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        missing(f"no Helm: {found.stderr.strip()}")
    return found.stdout.strip()


@pytest.fixture(scope="session")
def run_helm(helm: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `helm VERB CHART …`; never raises."""

    def run(verb: str, *options: str | Path, release: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [helm, verb, *([release] if release else []), str(CHART), *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Manifests]:
    """Manifests by kind and name. `values` is the name of a file under ci/; `overrides` go on top, as JSON."""

    @cache
    def text(values: str, *overrides: str, release: str) -> str:
        options = ["--namespace", "shop", "--values", str(CHART / "ci" / f"{values}-values.yaml")]
        for override in overrides:
            options += ["--set-json", override]
        rendered = run_helm("template", *options, release=release)
        assert rendered.returncode == 0, rendered.stderr
        return rendered.stdout

    def manifests(values: str = "small", *overrides: str, release: str = "shop") -> Manifests:
        documents = [document for document in yaml.safe_load_all(text(values, *overrides, release=release)) if document]
        return {(document["kind"], document["metadata"]["name"]): document for document in documents}

    return manifests


@pytest.fixture(scope="session")
def refusal(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """What Helm says when it refuses `overrides` on top of the small values."""

    def message(*overrides: str) -> str:
        options = ["--values", str(CHART / "ci" / "small-values.yaml")]
        for override in overrides:
            options += ["--set-json", override]
        rendered = run_helm("template", *options, release="shop")
        assert rendered.returncode != 0
        return rendered.stderr

    return message
