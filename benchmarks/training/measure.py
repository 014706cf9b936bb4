"""A contestant is a process of its own: its CPU-seconds (children included), wall and peak memory are the kernel's.

A contestant prints, last, one JSON object: its answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class ContestantError(RuntimeError):
    """A contestant's process failed; the message ends with what it said last."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a process took, from its start to its end."""

    cpu_seconds: float
    wall_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True)
class Finish:
    """A contestant's cost and its answer."""

    cost: Cost
    answer: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.cost), **self.answer}


def run_contestant(arguments: Sequence[str], *, python: Path | str = sys.executable, threads: int = 2) -> Finish:
    """Run `python arguments…` in the project's root, on so many threads.

    Raises:
        ContestantError: it failed, or its last line is no JSON object.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = (
        os.environ
        | dict.fromkeys(names, str(threads))
        | {
            "DGLBACKEND": "pytorch",
            "OMP_WAIT_POLICY": "PASSIVE",  # else threads that wait burn CPU-seconds on a busy machine
            "PYTHONPATH": str(ROOT),
        }
    )
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(python), *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    # wait4 and not wait: it says what this very process and its children used.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    cost = Cost(
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 2),
        wall_seconds=round(time.perf_counter() - started, 2),
        peak_memory_mb=round(usage.ru_maxrss / 1024, 1),
    )
    if process.returncode != 0:
        raise ContestantError(f"{' '.join(arguments)} ended with {process.returncode}: " + "\n".join(lines[-15:]))
    for line in reversed(lines):
        if line.startswith("{"):
            return Finish(cost=cost, answer=json.loads(line))
    raise ContestantError(f"{' '.join(arguments)} printed no JSON object: " + "\n".join(lines[-15:]))
