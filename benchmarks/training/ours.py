"""Our whole recipe on a split, as `python -m benchmarks.quality` runs it: reading, tuning and training included."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.training.measure import run_contestant


@dataclass(frozen=True, kw_only=True)
class Ours:
    recall: float
    ndcg: float
    cpu_seconds: float
    wall_seconds: float | None
    peak_memory_mb: float
    source: str

    @classmethod
    def from_result(cls, result: Mapping[str, Any], *, wall_seconds: float | None, source: str) -> Ours:
        """A result of `benchmarks.quality`; `cpu_seconds` there end with the first seed's training."""
        names = ("recall", "ndcg", "cpu_seconds", "peak_memory_mb")
        return cls(**{name: result[name] for name in names}, wall_seconds=wall_seconds, source=source)


def our_recipe(train: Path, test: Path, *, earlier: Path | None = None) -> Ours:
    """Run it with one seed, once for each split in one process; or read a result that it wrote earlier."""
    if earlier is not None:
        result = json.loads(earlier.read_text())
        return Ours.from_result(result, wall_seconds=None, source=f"{earlier.name} of {result['machine']['date']}")
    return _run(train, test)


@cache
def _run(train: Path, test: Path) -> Ours:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ours.json"
        arguments = ["--train", str(train), "--test", str(test), "--seeds", "1", "--out", str(out)]
        finish = run_contestant(["-m", "benchmarks.quality", *arguments])
    result = finish.answer | {"peak_memory_mb": finish.cost.peak_memory_mb}
    return Ours.from_result(result, wall_seconds=finish.cost.wall_seconds, source="this run")
