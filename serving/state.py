"""Which bundle a worker answers with, and the hot swap.

A new bundle is loaded beside the old one, its hashes and golden request are checked and a warm-up is scored; only then
does one assignment put it in place. Whatever fails on the way, the old one goes on serving.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, ValidationError

from components.core.artifact import Artifact
from components.core.clock import parse_time, wall_clock
from components.core.errors import ArtifactError, BasketweaveError
from components.core.live import read_pointer
from components.core.settings import Settings
from components.core.store import Store, write_file_whole
from serving import metrics

if TYPE_CHECKING:  # torch loads in a worker when it loads a bundle, never in BentoML's arbiter
    from components.model.bundle import Bundle
    from serving.recommend import Recommender

logger = logging.getLogger(__name__)

# A bundle that was refused is tried again, ever more rarely: the store may have been away for a moment.
FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 60.0


class WorkerRecord(BaseModel):
    """What a worker tells its siblings, so that one `/readyz` speaks for all of them."""

    pid: int
    bundle: str


class ServiceState:
    """One worker's state. `current` is replaced whole, so a request that holds it is never torn."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Recommender | None = None
        self.loaded_at: datetime | None = None
        self.reason: str | None = "The bundle is being loaded."
        self._store = Store(settings.artifact_root)
        self._refused: str | None = None
        self._next_try = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        # The parent is BentoML's arbiter: one folder a service, one file a worker.
        self._peers = settings.project_home / "service" / str(os.getppid())

    @property
    def follows_pointer(self) -> bool:
        return self.settings.serve.bundle is None

    def refresh(self) -> None:
        """Look whether another bundle is wanted, and swap to it. Logs and keeps the old one on failure."""
        try:
            wanted = self._wanted()
        except (BasketweaveError, OSError) as error:
            self._refuse("pointer", error)
            return
        if wanted is None:
            self.reason = "There is no deploy pointer yet. Run the pipeline, or serve a bundle by --bundle."
            return
        where, sha256 = wanted
        key = f"{where}@{sha256}"
        if self.current is not None and self.current.bundle.sha256 == sha256:
            self.reason = None
            return
        if key == self._refused and time.monotonic() < self._next_try:
            return
        try:
            self._swap(self._load(where, sha256))
        except (BasketweaveError, OSError, ValueError, KeyError) as error:
            self._refuse(key, error)

    def workers(self) -> dict[str, int]:
        """Live workers of this service by the bundle that they answer with."""
        found: Counter[str] = Counter()
        for path in self._peers.glob("worker-*.json"):
            try:
                record = WorkerRecord.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                continue
            if _runs(record.pid):
                found[record.bundle] += 1
        return dict(found)

    def leave(self) -> None:
        """Take this worker off the list of live ones."""
        self._own_record.unlink(missing_ok=True)

    @property
    def _own_record(self) -> Path:
        return self._peers / f"worker-{os.getpid()}.json"

    def _wanted(self) -> tuple[str, str | None] | None:
        """(where, hash) of the bundle that should serve; the hash of a folder given by hand is its manifest's own."""
        if self.settings.serve.bundle is not None:
            current = self.current
            return self.settings.serve.bundle, current.bundle.sha256 if current else None
        pointer = read_pointer(self._store)
        return None if pointer is None else (pointer.bundle.uri, pointer.bundle.sha256)

    def _load(self, where: str, sha256: str | None) -> Recommender:
        from components.model.bundle import Bundle
        from serving.recommend import Recommender

        if sha256 is None or not self.follows_pointer:
            folder = Path(where)
        else:
            artifact = Artifact.open(self._store, where, sha256=sha256, kind="bundle")
            folder = artifact.local_folder(self.settings.project_home / "bundles")
        bundle = Bundle.load(folder)
        if sha256 is not None and bundle.sha256 != sha256:
            raise ArtifactError(f"{where} is not the bundle that the pointer names: its hash differs.")
        bundle.golden.check(bundle.scorer)
        recommender = Recommender(
            bundle,
            clock=service_clock(self.settings, bundle),
            max_k=self.settings.serve.max_k,
            max_history=self.settings.serve.max_history,
        )
        recommender.warm_up()
        return recommender

    def _swap(self, recommender: Recommender) -> None:
        old = self.current
        self.current = recommender
        self.loaded_at = wall_clock()
        self.reason = self._refused = None
        self._retry_seconds = FIRST_RETRY_SECONDS
        if old is not None:
            metrics.BUNDLE_INFO.labels(*bundle_labels(old.bundle)).set(0)
        metrics.BUNDLE_INFO.labels(*bundle_labels(recommender.bundle)).set(1)
        metrics.BUNDLE_LOADS.labels("loaded").inc()
        record = WorkerRecord(pid=os.getpid(), bundle=recommender.bundle.sha256)
        write_file_whole(self._own_record, record.model_dump_json().encode())
        logger.info("Bundle %s serves, cutoff %s.", recommender.bundle.sha256[:12], recommender.bundle.cutoff)

    def _refuse(self, key: str, error: Exception) -> None:
        self._retry_seconds = FIRST_RETRY_SECONDS if key != self._refused else self._retry_seconds * 2
        self._retry_seconds = min(self._retry_seconds, LONGEST_RETRY_SECONDS)
        self._next_try = time.monotonic() + self._retry_seconds
        if key != self._refused or self.reason != str(error):
            serving = self.current.bundle.sha256[:12] if self.current else "none"
            logger.error("A bundle was refused, %s goes on serving: %s", serving, error)
            metrics.BUNDLE_LOADS.labels("refused").inc()
        self._refused = key
        self.reason = str(error)


def _runs(pid: int) -> bool:
    """A killed worker stays a zombie until BentoML's arbiter looks, up to ten seconds later."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def bundle_labels(bundle: Bundle) -> tuple[str, str]:
    return bundle.sha256[:12], bundle.cutoff.date().isoformat()


def service_clock(settings: Settings, bundle: Bundle) -> Callable[[], datetime]:
    """'Now' for the age of histories: the wall clock, a set time, or the bundle's own `as_of` (a replay)."""
    clock = settings.serve.clock
    if clock == "wall":
        return wall_clock
    fixed = bundle.as_of if clock is None else parse_time(clock)
    return lambda: fixed
