"""What this worker sees of a rollout: counters by stage and arm, written to the store every few seconds."""

from __future__ import annotations

import logging
import threading
import time

from components.core.observations import ArmCounts, StageCounts, WorkerObservations, cell_of, write_observations
from components.core.store import Store
from serving import metrics

logger = logging.getLogger(__name__)


class Recorder:
    """Counts for one rollout. Safe from every thread; nothing here ever fails a request."""

    def __init__(self, store: Store, *, rollout: str, worker: str, every_seconds: float) -> None:
        self.rollout = rollout
        self._store = store
        self._every = every_seconds
        self._lock = threading.Lock()
        self._seen = WorkerObservations(worker=worker)
        self._is_dirty = True  # its first file says that the worker takes part
        self._written = -every_seconds
        self._is_failing = False

    def answered(
        self, step: str, arm: str, *, cluster: int, seconds: float | None, outcome: str, is_fallback: bool = False
    ) -> None:
        """One list of an arm. `outcome`: 'answered', 'empty', or 'error' where the champion had to stand in. `seconds`:
        what the request took; None: it was one of a batch."""
        with self._lock:
            counts = self._arm(step, arm)
            counts.requests += 1
            counts.errors += outcome == "error"
            counts.empty += outcome == "empty"
            counts.fallbacks += is_fallback
            if seconds is not None:
                cell = cell_of(seconds)
                counts.seconds[cell] = counts.seconds.get(cell, 0) + 1
            counts.count(cluster, lists=1)
        metrics.ARM_REQUESTS.labels(arm, outcome).inc()
        if seconds is not None:
            metrics.ARM_SECONDS.labels(arm).observe(seconds)

    def shadowed(self, step: str, overlap: float) -> None:
        with self._lock:
            stage = self._step(step)
            stage.shadowed += 1
            stage.overlap_sum += overlap
        metrics.SHADOW_OVERLAP.observe(overlap)

    def shed(self, step: str) -> None:
        with self._lock:
            self._step(step).shed += 1

    def fed_back(self, step: str, arm: str, *, cluster: int, impressions: int = 0, clicks: int = 0) -> None:
        with self._lock:
            counts = self._arm(step, arm)
            counts.impressions += impressions
            counts.clicks += clicks
            counts.count(cluster, impressions=impressions, clicks=clicks)
        metrics.ARM_IMPRESSIONS.labels(arm).inc(impressions)
        metrics.ARM_CLICKS.labels(arm).inc(clicks)

    def holds(self, is_held: bool) -> None:
        """Whether this worker has the challenger in memory."""
        with self._lock:
            self._is_dirty |= self._seen.holds_challenger != is_held
            self._seen.holds_challenger = is_held

    def refused(self, reason: str) -> None:
        """The challenger could not be loaded."""
        with self._lock:
            self._seen.refusals += 1
            self._seen.refusal = reason
            self._is_dirty = True

    def flush(self, *, at_once: bool = False) -> None:
        """Write the counters if something is new and it is time. The store may be away: then they wait."""
        now = time.monotonic()
        with self._lock:
            if not self._is_dirty or (not at_once and now - self._written < self._every):
                return
            seen = self._seen.model_copy(deep=True)
            self._is_dirty = False
            self._written = now
        try:
            write_observations(self._store, self.rollout, seen)
        except OSError as error:
            with self._lock:
                self._is_dirty = True
            if not self._is_failing:
                logger.warning("What was seen of the rollout is not written, and kept for later: %s", error)
            self._is_failing = True
        else:
            self._is_failing = False

    def _step(self, step: str) -> StageCounts:
        self._is_dirty = True
        return self._seen.steps.setdefault(step, StageCounts())

    def _arm(self, step: str, arm: str) -> ArmCounts:
        return self._step(step).arm(arm)
