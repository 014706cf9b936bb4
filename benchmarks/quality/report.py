"""Progress on the terminal while a benchmark works."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import track

from benchmarks.quality.recipe import Track


def tracker(console: Console) -> Track:
    """A bar for each loop that leaves nothing behind."""

    def show(items: Iterable[Any], description: str) -> Iterable[Any]:
        return track(list(items), description=description, console=console, transient=True)

    return show
