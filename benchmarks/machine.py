"""What a benchmark ran on: written into every result, since a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from components.core.clock import wall_clock

LIBRARIES = ("numpy", "pyarrow", "duckdb", "torch")


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


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
