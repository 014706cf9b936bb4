"""The wheel outside the checkout: everything that is no Python module has travelled with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).parents[2]
LOOK = """
import json, pathlib, components, feature_repo.definitions, serving
from components.core.hashing import code_sha256
from components.model.compiled import library
from components.orchestration.environment import dags_folder
beside = pathlib.Path(components.__file__).parents[1]
print(json.dumps({
    "components": components.__file__,
    "feature_repo": feature_repo.__file__,
    "dags": sorted(path.name for path in dags_folder().glob("*.py")),
    "dags_folder": str(dags_folder()),
    "chart": (beside / "charts" / "basketweave" / "Chart.yaml").is_file(),
    "page": (beside / "serving" / "pages" / "index.html").is_file(),
    "quality": (beside / "components" / "validate" / "quality.html").is_file(),
    "profiles": sorted(path.stem for path in (beside / "components" / "ingest" / "profiles").glob("*.toml")),
    "code": len(code_sha256(("components.core",))),
    "compiled": library("retrieval_batch") is not None,
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout and unpacked into a folder of its own."""
    needs.program("cc", package="gcc")
    folder = tmp_path_factory.mktemp("wheel")
    wheel = build(ROOT, folder / "dist")
    # A wheel is a zip of what goes into site-packages.
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder / "site")], check=True)
    return folder / "site"


def build(source: Path, folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=source, env={**os.environ, **environment}, check=True, capture_output=True)
    (wheel,) = folder.glob("basketweave-*.whl")
    return wheel


def run_outside(installed: Path, tmp_path: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "BASKETWEAVE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_everything_is_found_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    found = json.loads(run_outside(installed, tmp_path, "-c", LOOK).splitlines()[-1])
    assert Path(found["components"]).is_relative_to(installed)
    assert Path(found["feature_repo"]).is_relative_to(installed)
    assert Path(found["dags_folder"]).is_relative_to(installed)
    assert "recommender.py" in found["dags"]
    assert (found["chart"], found["page"], found["quality"], found["code"]) == (True, True, True, 64)
    assert found["compiled"]
    assert {"complete_journey", "online_retail"} <= set(found["profiles"])


def test_the_command_answers_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert "recommendations" in run_outside(installed, tmp_path, "-m", "components.cli", "--help")


def test_the_wheel_holds_our_packages_alone(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "charts",
        "components",
        "dags",
        "feature_repo",
        "serving",
    }


def test_without_a_compiler_there_is_a_wheel_for_every_machine(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "hatch_build.py"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    for name in ("charts", "components", "dags", "feature_repo", "serving"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    wheel = build(tmp_path, tmp_path / "dist", CC="no-such-compiler")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "components/model/retrieval_batch.c" in names
    assert not [name for name in names if name.endswith(".so")]
