"""The rules of docs/architecture.md, and the linters, held by the tests."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("components", "dags", "feature_repo", "serving")
BIN = Path(sys.executable).parent
STEPS = ("ingest", "validate", "features", "graph", "train", "evaluate", "deploy", "monitor")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in (ROOT / package).rglob("*.py")]


def test_the_import_contracts_are_kept() -> None:
    done = run(str(BIN / "lint-imports"))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_is_clean(arguments: tuple[str, ...]) -> None:
    done = run(str(BIN / "ruff"), *arguments)
    assert done.returncode == 0, done.stdout


def test_mypy_is_clean() -> None:
    done = run(str(BIN / "mypy"))
    assert done.returncode == 0, done.stdout


def test_nothing_imports_the_dags() -> None:
    offenders = []
    for path in sources("components", "feature_repo", "serving"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            offenders += [str(path) for name in names if name.split(".")[0] == "dags"]
    assert offenders == []


def test_settings_alone_read_the_environment() -> None:
    # These hand an environment on to a process that they start; none reads a setting from it.
    allowed = {
        "components/core/settings.py",
        "components/orchestration/environment.py",
        "components/orchestration/scheduler.py",
    }
    reading = re.compile(r"os\.(environ\.get|getenv|environ\[)")
    found = {
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        if any(
            reading.search(line) and not re.search(r"os\.environ\[[^]]+\] = ", line)
            for line in path.read_text().splitlines()
        )
    }
    assert found - allowed == set()


HEAVY = ("airflow", "bentoml", "dgl", "duckdb", "feast", "great_expectations", "mlflow", "pandas", "scipy", "torch")
# What a help page loads is counted, since how long it takes is the machine's: some 600 modules today, pandas alone 800.
MOST_MODULES = 1_000


@pytest.mark.parametrize("module", ["components.cli", *(f"components.{name}" for name in STEPS)])
def test_a_help_page_loads_nothing_heavy(module: str) -> None:
    done = run(sys.executable, "-X", "importtime", "-m", module, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "components.core.settings" in loaded
    assert sorted(loaded.intersection(HEAVY)) == []
    assert len(loaded) < MOST_MODULES
