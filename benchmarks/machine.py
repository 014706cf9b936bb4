"""What a benchmark ran on and what it used: a figure without its machine says nothing."""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from components.core.clock import wall_clock

LIBRARIES = ("numpy", "scipy", "pyarrow", "duckdb", "torch")
RESULTS = Path(__file__).parent / "results"


def describe_machine(libraries: Iterable[str] = LIBRARIES) -> dict[str, Any]:
    """Date, processor, cores that may be used, memory, load at the time, and versions."""
    return {
        "date": wall_clock().date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in libraries},
    }


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_memory_mb() -> int:
    """Largest resident set that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_result(name: str, result: Mapping[str, Any], *, path: Path | None = None) -> Path:
    """Write `result` and the machine as JSON to `path`, or to NAME.json among the results."""
    target = path or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_suffix(".staged")
    staged.write_text(json.dumps({**result, "machine": describe_machine()}, indent=1) + "\n")
    staged.replace(target)
    return target


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
