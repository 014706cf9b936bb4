"""Which bundles a worker answers with, and the hot swap.

A new bundle is loaded beside the old one, its hashes and golden request are checked and a warm-up is scored; only then
does one assignment put it in place. Whatever fails on the way, the old one goes on serving.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
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
from serving.following import Refusals, RolloutFollower, key_of
from serving.herald import Herald
from serving.loading import turn
from serving.rollout import Answer, Call, Routed, Shadow, answer_routed

if TYPE_CHECKING:  # torch loads in a worker when it loads a bundle, never in BentoML's arbiter
    from components.model.bundle import Bundle
    from serving.recommend import Recommender

logger = logging.getLogger(__name__)


class WorkerRecord(BaseModel):
    """What a worker tells its siblings, so that one `/readyz` speaks for all of them."""

    pid: int
    bundle: str


class ServiceState:
    """One worker's state. `current` and the routes are replaced whole, so a request that holds them is never torn."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Recommender | None = None
        self.loaded_at: datetime | None = None
        self.reason: str | None = "The bundle is being loaded."
        self._store = Store(settings.artifact_root)
        self._looking = threading.Lock()
        self._refusals = Refusals()
        self._refused: str | None = None  # of them, what the pointer names
        self._herald = Herald(self._store)
        self._shadow = Shadow()
        self._follower = RolloutFollower(
            self._store,
            worker=self._herald.worker,
            every_seconds=settings.rollout.observe_seconds,
            load=self._load_beside,
            refusals=self._refusals,
        )
        # The parent is BentoML's arbiter: one folder a service, one file a worker.
        self._peers = settings.project_home / "service" / str(os.getppid())

    @property
    def follows_pointer(self) -> bool:
        return self.settings.serve.bundle is None

    def refresh(self) -> None:
        """Look at pointer and rollout, load what they name, and swap. Logs and keeps what it has on failure."""
        self.look()
        while (loading := self._follower.loading) is not None:
            loading.wait()
            self.look()

    def look(self) -> None:
        """As `refresh`, without waiting for the bundles of a rollout: a later look takes them up."""
        with self._looking:  # the polling and a request of an admin
            self._follower.take_up(serving=self._serving)
            self._follow_pointer()
            if self.current is None or not self.follows_pointer:
                return
            self._follower.follow(self.current)
            rollout = self._follower.rollout
            self._herald.tell(bundle=self.current.bundle.sha256, rollout=rollout.id if rollout else None)

    def route(self, user_id: str | None) -> Routed:
        """Whom the user's request is answered by; there must be a bundle (`current`)."""
        current, routes = self.current, self._follower.routes
        assert current is not None
        if routes is None or routes.current is not current:  # a bundle given to the state by hand, or a swap just now
            return Routed(current)
        return routes.route(user_id)

    def route_many(self, user_ids: Sequence[str]) -> list[Routed]:
        """As `route`, of each user."""
        if self._follower.rollout is None:  # a look that comes between sends somebody to the bundle of before or after
            return [self.route(None)] * len(user_ids)
        return [self.route(user_id) for user_id in user_ids]

    def answer(self, user_id: str | None, call: Call[Answer]) -> Answer:
        """Answer a request by whom the rollout says, and count it there: `call(recommender, degraded)` -> an answer
        with `items`, `source` and `degraded`. `call` counts nothing, since it may run twice, and later once more."""
        return answer_routed(self.route(user_id), call, shadow=self._shadow)

    @property
    def stage(self) -> str:
        """The rollout's stage; 'production' where none runs."""
        rollout = self._follower.rollout
        return "production" if rollout is None else rollout.stage

    def observe_click(self, user_id: str, count: int = 1) -> None:
        """A click on a served list was reported, to whichever worker."""
        self._follower.observe(user_id, clicks=count)

    def observe_impressions(self, user_id: str, count: int) -> None:
        """So many places of a served list were reported as seen."""
        self._follower.observe(user_id, impressions=count)

    def _follow_pointer(self) -> None:
        try:
            wanted = self._wanted()
        except (BasketweaveError, OSError) as error:
            self._refuse("pointer", error)
            return
        self._refusals.forget("pointer")
        if wanted is None:
            self.reason = "There is no deploy pointer yet. Run the pipeline, or serve a bundle by --bundle."
            return
        where, sha256 = wanted
        key = key_of(where, sha256)
        if self._refused not in (None, key):
            # It is no longer asked for; whoever points to it again has mended it, and need not wait for its next try.
            self._refusals.forget(self._refused)
            self._refused = None
        if self.current is not None and self.current.bundle.sha256 == sha256:
            self.reason = None
            return
        if sha256 is not None and (held := self._follower.held.get(sha256)) is not None:
            self._swap(held)
            return
        loading = self._follower.loading
        if self._refusals.must_wait(key) or (loading is not None and loading.ref.sha256 == sha256):
            return
        try:
            if self.current is None:  # nobody is answered meanwhile
                self._swap(self._load(where, sha256))
            else:
                with turn(self._peers / "pointer.turn"):
                    recommender = self._load(where, sha256)
                self._swap(recommender)
        except (BasketweaveError, OSError, ValueError, KeyError) as error:
            self._refuse(key, error)
            self._refused = key

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
        """Take this worker off the list of live ones, and keep what it has seen."""
        self._own_record.unlink(missing_ok=True)
        self._follower.close()
        self._herald.leave()

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

    def _load_beside(self, where: str, sha256: str) -> Recommender:
        """A rollout's; whose turn it is has nothing to do with the pointer's, which never waits for these."""
        with turn(self._peers / "rollout.turn"):
            return self._load(where, sha256)

    def _load(self, where: str, sha256: str | None) -> Recommender:
        from components.model.bundle import Bundle
        from serving.lists import Exploration
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
            exploration=Exploration(
                share=self.settings.serve.exploration, temperature=self.settings.serve.exploration_temperature
            ),
        )
        recommender.warm_up()
        return recommender

    def _swap(self, recommender: Recommender) -> None:
        old = self.current
        # The routes first: a request that comes between the two finds them not to be of its bundle, and needs none.
        self._follower.swapped(recommender)
        self.current = recommender
        self.loaded_at = wall_clock()
        self.reason = None
        self._refusals.clear()
        if old is not None:
            metrics.BUNDLE_INFO.labels(*bundle_labels(old.bundle)).set(0)
        metrics.BUNDLE_INFO.labels(*bundle_labels(recommender.bundle)).set(1)
        metrics.BUNDLE_LOADS.labels("loaded").inc()
        record = WorkerRecord(pid=os.getpid(), bundle=recommender.bundle.sha256)
        write_file_whole(self._own_record, record.model_dump_json().encode())
        logger.info("Bundle %s serves, cutoff %s.", recommender.bundle.sha256[:12], recommender.bundle.cutoff)

    @property
    def _serving(self) -> str:
        return self.current.bundle.sha256[:12] if self.current else "none"

    def _refuse(self, key: str, error: Exception) -> None:
        self._refusals.add(key, error, serving=self._serving)
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
