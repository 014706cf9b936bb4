"""Who looks on while steps run in this process: `basketweave run` sets a watcher, a scheduler's worker has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from components.core.journal import TaskEntry
from components.core.progress import Progress


class Watcher:
    """Hears of each task as it starts and ends. This one is silent."""

    progress: Progress | None = None
    """Draws the bars inside a step; None: the step's own default."""

    def started(self, task: str) -> None:
        """The task begins."""

    def finished(self, entry: TaskEntry) -> None:
        """The task has ended, well or not."""


_watchers: list[Watcher] = [Watcher()]


def current_watcher() -> Watcher:
    return _watchers[-1]


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` hear of the tasks that run in this process meanwhile."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
