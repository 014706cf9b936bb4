"""Progress bars that a person sees and a log does not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import track

T = TypeVar("T")


class Progress:
    """Draws on stderr when that is a terminal; elsewhere it is silent, so logs hold no half-drawn bars."""

    def __init__(self, console: Console | None = None) -> None:
        # Airflow replaces sys.stderr while a task runs; the process's own stderr is the terminal.
        self.console = console or Console(file=sys.__stderr__)

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterable[T]:
        if not self.console.is_terminal:
            return items
        return track(items, description=description, total=total, console=self.console, transient=True)

    @contextmanager
    def bar(self, description: str, *, total: int) -> Iterator[Callable[[], None]]:
        """A bar for work that is no loop of the caller's; gives the function that advances it by one."""
        if not self.console.is_terminal:
            yield lambda: None
            return
        with Bars(console=self.console, transient=True) as bars:
            task = bars.add_task(description, total=total)
            yield lambda: bars.advance(task)
