"""Served lists, sampled, with the probability that each had: what off-policy estimates are made from.

`served/<day>/<worker>.jsonl` under the artifact root, two kinds of lines:

    {"kind": "list", "list_id", "at", "arm", "bundle", "user", "source", "items": [{"item_id", "position", "score"}],
     "propensity", "request": {…}}
    {"kind": "event", "list_id", "at", "item_id", "event_type"}

A list is chosen by its random id, so that every worker knows which events belong to a logged list. Users are
pseudonyms. A thread of its own writes; when it cannot keep up, lists are left out and counted, never waited for.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from pydantic_core import to_json

from components.core.store import Store
from serving import metrics
from serving.line_log import LineLog

logger = logging.getLogger(__name__)

FOLDER = "served"
WAITING = 10_000
WRITE_SECONDS = 1.0
TIDY_SECONDS = 60.0
MB = 1_000_000


class ServedList(NamedTuple):
    """One list, as it is logged."""

    list_id: str
    at: datetime  # by the service's clock
    arm: str | None
    bundle: str
    user: str | None  # pseudonym
    source: str
    items: list[tuple[str, float]]  # item id and score, in the order shown
    propensity: float
    request: dict[str, Any]  # the conditions that differ from the defaults, users and items aside

    def record(self) -> dict[str, Any]:
        items = [
            {"item_id": item_id, "position": place, "score": score}
            for place, (item_id, score) in enumerate(self.items, start=1)
        ]
        return {"kind": "list", **self._asdict(), "at": self.at.isoformat(), "items": items}


class ListEvent(NamedTuple):
    """What somebody did on a logged list."""

    list_id: str
    at: datetime
    item_id: str
    event_type: str

    def record(self) -> dict[str, Any]:
        return {"kind": "event", **self._asdict(), "at": self.at.isoformat()}


class ServedLog:
    """A worker's log of lists. `offer` never blocks and never raises."""

    def __init__(self, store: Store, *, worker: str, share: float, max_mb: float) -> None:
        self._lines = LineLog(store, FOLDER, worker=worker)
        self._store = store
        self._threshold = round(share * 2**32)
        self._max_bytes = max_mb * MB
        self._waiting: queue.Queue[ServedList | ListEvent] = queue.Queue(WAITING)
        self._stopped = threading.Event()
        self._writing: threading.Thread | None = None
        self._since_tidied = TIDY_SECONDS

    def chooses(self, list_id: str) -> bool:
        """Whether the list is one of the sample; ids are random, so their first 32 bits are a fair coin."""
        return self._threshold > 0 and int(list_id[:8], 16) < self._threshold

    def offer(self, record: ServedList | ListEvent) -> None:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            metrics.SERVED_LOG.labels("left_out").inc()

    def start(self) -> None:
        self._writing = threading.Thread(target=self._write_on, name="served-log", daemon=True)
        self._writing.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._stopped.set()
        if self._writing is not None:
            self._writing.join(timeout=5)
        self.flush()
        self._lines.close()

    def flush(self) -> None:
        """Write what waits now. Failing, the lists are left out and counted."""
        waiting = list(self._taken())
        by_day: dict[str, list[bytes]] = {}
        for one in waiting:
            by_day.setdefault(one.at.date().isoformat(), []).append(to_json(one.record()))
        for day, lines in by_day.items():
            try:
                self._lines.append(lines, day=day)
            except Exception as error:  # noqa: BLE001 (each store fails in its own types; serving goes on)
                logger.warning("%d lists could not be logged: %s", len(lines), error)
                metrics.SERVED_LOG.labels("left_out").inc(len(lines))
            else:
                metrics.SERVED_LOG.labels("logged").inc(len(lines))

    def tidy(self) -> None:
        """Delete the oldest files beyond the log's size; its own open one is the last to go."""
        folder = self._store.path(FOLDER)
        if not self._store.fs.exists(folder):
            return
        files = sorted(self._store.fs.find(folder, detail=True).items())  # by day, since a path begins with it
        excess = sum(entry["size"] for _, entry in files) - self._max_bytes
        for path, entry in files:
            if excess <= 0:
                break
            try:
                self._store.fs.rm_file(path)
            except FileNotFoundError:  # another worker tidies too
                continue
            excess -= entry["size"]

    def _taken(self) -> Iterator[ServedList | ListEvent]:
        while True:
            try:
                yield self._waiting.get_nowait()
            except queue.Empty:
                return

    def _write_on(self) -> None:
        while not self._stopped.wait(WRITE_SECONDS):
            try:
                self.flush()
                self._since_tidied += WRITE_SECONDS
                if self._since_tidied >= TIDY_SECONDS:
                    self._since_tidied = 0.0
                    self.tidy()
            except Exception:
                logger.exception("Logging served lists failed; they are left out.")
