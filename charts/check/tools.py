"""Checkers from PyPI that would not go together with the project's own packages.

Each has an environment of its own, made once and kept in the user's cache folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import filelock
from platformdirs import user_cache_path

CHECKOV = ("checkov==3.3.30",)
# Kubernetes' own types of the Prometheus operator; its pytest plugin breaks a test run that it is installed beside.
OPERATOR_MODELS = ("cloudcoil==0.6.0", "cloudcoil-models-prometheus-operator==0.80.1.0", "pyyaml==6.0.3")


def python_with(name: str, requirements: tuple[str, ...]) -> Path:
    """Path of a Python that has the requirements; raises RuntimeError with pip's words where they cannot be had."""
    folder = (
        user_cache_path("basketweave") / f"{name}-{requirements[-1 if name == 'checkov' else 1].partition('==')[2]}"
    )
    python, stamp = folder / "bin" / "python", folder / "complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if not stamp.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, capture_output=True)
            install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *requirements]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            done = subprocess.run(install, capture_output=True, text=True, check=False, env=environment)
            if done.returncode != 0:
                raise RuntimeError(f"{', '.join(requirements)} cannot be installed: {done.stderr.strip()[-500:]}")
            stamp.touch()
    return python
