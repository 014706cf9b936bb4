"""How a log is cut in time. One grid, counted back from `as_of` in windows of `window_days`:

      training windows        validation       hold-out
    ──┬───────────┬───────────┬────────────────┬───────────┤
      t0          t1          validation_start  cutoff      as_of

A target window is predicted from what was known at its start: features, graph and start vectors alike.
The bundle's graph and weights end at `cutoff`; the gate judges that very bundle on the hold-out [cutoff, as_of).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from components.core.sections import SplitSettings


@dataclass(frozen=True, kw_only=True)
class Window:
    """Targets are the events of [start, end); inputs end at `start`."""

    start: datetime
    end: datetime


@dataclass(frozen=True, kw_only=True)
class TimeSplit:
    as_of: datetime
    window: timedelta
    training_windows: int

    @classmethod
    def of(cls, as_of: datetime, settings: SplitSettings) -> TimeSplit:
        return cls(as_of=as_of, window=timedelta(days=settings.window_days), training_windows=settings.training_windows)

    @property
    def cutoff(self) -> datetime:
        """End of everything that the bundle has learnt from."""
        return self.as_of - self.window

    @property
    def holdout(self) -> Window:
        return Window(start=self.cutoff, end=self.as_of)

    @property
    def validation(self) -> Window:
        return Window(start=self.cutoff - self.window, end=self.cutoff)

    @property
    def training(self) -> tuple[Window, ...]:
        """Oldest first; they end where the validation slice begins."""
        last_end = self.validation.start
        starts = [last_end - self.window * n for n in range(self.training_windows, 0, -1)]
        return tuple(Window(start=start, end=start + self.window) for start in starts)

    @property
    def graph_cutoffs(self) -> tuple[datetime, ...]:
        """Moments whose item graph training and serving need, oldest first."""
        return (*(window.start for window in self.training), self.validation.start, self.cutoff)

    @property
    def snapshot_times(self) -> tuple[datetime, ...]:
        """Moments at which user features are read, oldest first."""
        return (*self.graph_cutoffs, self.as_of)


def cutoff_folder(cutoff: datetime) -> str:
    """Name of a cutoff's folder in the graph artifact."""
    return f"cutoff={cutoff:%Y%m%dT%H%M%S}"
