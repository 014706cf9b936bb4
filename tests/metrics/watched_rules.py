"""The alert rules that the chart installs, as Prometheus reads them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from needs import missing

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "basketweave"


def chart_rules(**changes: Any) -> list[dict[str, Any]]:
    """The rule groups that the chart installs for the release 'basketweave' of the project 'shop'."""
    found = subprocess.run([ROOT / "charts" / "get_helm.sh"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        missing(f"no Helm: {found.stderr.strip()}")
    command = [found.stdout.strip(), "template", "basketweave", str(CHART), "--namespace", "shop"]
    command += ["--values", str(CHART / "ci" / "large-values.yaml"), "--set", "fullnameOverride=basketweave"]
    for key, value in {"maxRunCost": 0.000001, **changes}.items():
        command += ["--set-json", f"metrics.prometheusRule.{key}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifests = [document for document in yaml.safe_load_all(done.stdout) if document]
    groups: list[dict[str, Any]] = next(
        manifest["spec"]["groups"] for manifest in manifests if manifest["kind"] == "PrometheusRule"
    )
    return groups
