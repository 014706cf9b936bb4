"""Orchestration's share: what is left of a run's CPU when steps and their libraries are taken off."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.pipeline import Run, cpu_of


def test_the_share_is_what_steps_and_libraries_leave() -> None:
    run = Run(name="afresh", total=100.0, steps=80.0, libraries=8.0, outcome="")
    assert (run.orchestration, run.share) == (12.0, 0.12)
    assert Run(name="again", total=10.0, steps=9.0, libraries=4.0, outcome="").orchestration == 0.0


def test_a_commands_children_count_and_a_refused_promotion_is_no_failure() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); sys.exit(3)"
    seconds, status = cpu_of([sys.executable, "-c", outer], dict(os.environ))
    assert status == 3
    assert seconds >= 0.3
    with pytest.raises(SystemExit, match="ended with 1"):
        cpu_of([sys.executable, "-c", "raise ValueError"], dict(os.environ))
