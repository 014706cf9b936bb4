"""What the quality benchmarks show: progress while they work, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.quality.recipe import Track
from components.measures.bootstrap import paired_bootstrap

RESAMPLES, CONFIDENCE, SEED = 2000, 0.95, 20_261_124


def tracker(console: Console) -> Track:
    """A bar for each loop that leaves nothing behind."""

    def show(items: Iterable[Any], description: str) -> Iterable[Any]:
        return track(list(items), description=description, console=console, transient=True)

    return show


def interval(differences: np.ndarray) -> dict[str, float]:
    """Differences (B,) of users between two models -> their mean and where it lies, by the paired bootstrap."""
    found = paired_bootstrap(differences, resamples=RESAMPLES, confidence=CONFIDENCE, seed=SEED)[0]
    return {name: round(float(getattr(found, name)), 5) for name in ("mean", "lower", "upper")}


def shown(difference: dict[str, float]) -> str:
    return f"{difference['mean']:+.4f} [{difference['lower']:.4f}, {difference['upper']:.4f}]"
