"""The wheel outside the checkout: everything that is no Python module has travelled with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOOK = """
import json, pathlib, components, feature_repo.definitions, serving
from components.core.hashing import code_sha256
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
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout and unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("basketweave-*.whl")
    # A wheel is a zip of what goes into site-packages.
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder / "site")], check=True)
    return folder / "site"


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
