"""The Helm CLI and what it renders."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).resolve().parents[1]
CHART = CHARTS / "basketweave"
UMBRELLA = CHARTS / "basketweave-with-airflow"
RELEASE, NAMESPACE = "shop", "shop"
Manifest = dict[str, Any]


class NoHelmError(Exception):
    """There is no Helm CLI, and none could be fetched."""


@cache
def helm_path() -> str:
    """Path of a Helm CLI; fetched by npm where there is none."""
    found = subprocess.run([CHARTS / "get_helm.sh"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise NoHelmError(found.stderr.strip())
    return found.stdout.strip()


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `helm …`; never raises."""
    return subprocess.run([helm_path(), *map(str, arguments)], capture_output=True, text=True, check=False)


def ci_files(chart: Path = CHART) -> list[Path]:
    """The example values, smallest name first; read at each call."""
    return sorted((chart / "ci").glob("*-values.yaml"))


@dataclass(frozen=True)
class Rendered:
    """What `helm template` gave: manifests, or the error that says why there are none."""

    manifests: Sequence[Manifest]
    error: str


def render(values: Sequence[Path], *, overrides: Sequence[str] = (), chart: Path = CHART) -> Rendered:
    """Render the chart with files of values and overrides, each 'key=JSON'."""
    options: list[str | Path] = ["--namespace", NAMESPACE]
    for file in values:
        options += ["--values", file]
    for override in overrides:
        options += ["--set-json", override]
    done = helm("template", RELEASE, chart, *options)
    if done.returncode != 0:
        return Rendered((), done.stderr.strip())
    return Rendered([document for document in yaml.safe_load_all(done.stdout) if document], "")
