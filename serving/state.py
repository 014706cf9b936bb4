"""Which bundles a worker answers with, and the hot swap.

A new bundle is loaded beside the old one, its hashes and golden request are checked and a warm-up is scored; only then
does one assignment put it in place. Whatever fails on the way, the old one goes on serving. While a rollout runs, both
of its bundles are held, so going on to production or back to the champion loads nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, ValidationError

from components.core.artifact import Artifact
from components.core.clock import parse_time, wall_clock
from components.core.errors import ArtifactError, BasketweaveError
from components.core.live import process_start, read_pointer
from components.core.presence import HEARTBEAT_SECONDS, Presence, delete_presence, write_presence
from components.core.rollout import Rollout, place_of, read_barred, read_rollout
from components.core.settings import Settings
from components.core.store import Store, write_file_whole
from serving import metrics
from serving.observations import Recorder
from serving.rollout import Answer, Call, Routed, Routes, Shadow, answer_routed

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


@dataclass
class Refusal:
    """A bundle that could not be loaded, and when it is tried again."""

    reason: str
    wait_seconds: float
    next_try: float


class ServiceState:
    """One worker's state. `current` and the routes are replaced whole, so a request that holds them is never torn."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.current: Recommender | None = None
        self.loaded_at: datetime | None = None
        self.reason: str | None = "The bundle is being loaded."
        self._store = Store(settings.artifact_root)
        self._refusals: dict[str, Refusal] = {}
        self._held: dict[str, Recommender] = {}
        self._routes: Routes | None = None
        self._recorder: Recorder | None = None
        self._shadow = Shadow()
        self._unread_rollout: str | None = None
        self._presence: Presence | None = None
        self._present_at = 0.0
        # The parent is BentoML's arbiter: one folder a service, one file a worker.
        self._peers = settings.project_home / "service" / str(os.getppid())
        self._started_at = process_start(os.getpid())
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{self._started_at:.0f}"

    @property
    def follows_pointer(self) -> bool:
        return self.settings.serve.bundle is None

    def refresh(self) -> None:
        """Look at pointer and rollout, load what they name, and swap. Logs and keeps what it has on failure."""
        self._follow_pointer()
        if self.current is None or not self.follows_pointer:
            return
        self._follow_rollout()
        if self._recorder is not None:
            self._recorder.flush()
        self._tell()

    def route(self, user_id: str | None) -> Routed:
        """Whom the user's request is answered by; there must be a bundle (`current`)."""
        current, routes = self.current, self._routes
        assert current is not None
        if routes is None or routes.current is not current:  # a bundle given to the state by hand, or a swap just now
            return Routed(current)
        return routes.route(user_id)

    def answer(self, user_id: str | None, call: Call[Answer]) -> Answer:
        """Answer a request by whom the rollout says, and count it there: `call(recommender, degraded)` -> an answer
        with `items`, `source` and `degraded`. `call` counts nothing, since it may run twice, and later once more."""
        return answer_routed(self.route(user_id), call, recorder=self._recorder, shadow=self._shadow)

    @property
    def stage(self) -> str:
        """The rollout's stage; 'production' where none runs."""
        routes = self._routes
        return "production" if routes is None or routes.rollout is None else routes.rollout.stage

    def observe_click(self, user_id: str, count: int = 1) -> None:
        """A click on a served list was reported, to whichever worker."""
        self._observe(user_id, clicks=count)

    def observe_impressions(self, user_id: str, count: int) -> None:
        """So many places of a served list were reported as seen."""
        self._observe(user_id, impressions=count)

    def _observe(self, user_id: str, *, impressions: int = 0, clicks: int = 0) -> None:
        routes, recorder = self._routes, self._recorder
        if routes is None or recorder is None or (rollout := routes.rollout) is None or rollout.stage == "shadow":
            return
        place = place_of(user_id, rollout)
        recorder.fed_back(rollout.step, place.arm, cluster=place.cluster, impressions=impressions, clicks=clicks)

    def _follow_pointer(self) -> None:
        try:
            wanted = self._wanted()
        except (BasketweaveError, OSError) as error:
            self._refuse("pointer", error)
            return
        self._refusals.pop("pointer", None)
        if wanted is None:
            self.reason = "There is no deploy pointer yet. Run the pipeline, or serve a bundle by --bundle."
            return
        where, sha256 = wanted
        key = f"{where}@{sha256}"
        if self.current is not None and self.current.bundle.sha256 == sha256:
            self.reason = None
            return
        if sha256 is not None and (held := self._held.get(sha256)) is not None:
            self._swap(held)
            return
        if self._must_wait(key):
            return
        try:
            self._swap(self._load(where, sha256))
        except (BasketweaveError, OSError, ValueError, KeyError) as error:
            self._refuse(key, error)

    def _follow_rollout(self) -> None:
        """Take part in the rollout that runs. What cannot be read leaves everything as it is."""
        assert self.current is not None
        try:
            rollout = read_rollout(self._store)
            # A bar is the last word: a rollout that somebody writes after it is none.
            if rollout is not None and rollout.challenger.sha256 in read_barred(self._store):
                rollout = None
        except (BasketweaveError, OSError) as error:
            if str(error) != self._unread_rollout:
                logger.error("The rollout cannot be read, and everything stays as it is: %s", error)
            self._unread_rollout = str(error)
            rollout = self._routes.rollout if self._routes else None
        else:
            self._unread_rollout = None
        before = self._routes.rollout if self._routes else None
        if rollout is not None and (self._recorder is None or self._recorder.rollout != rollout.id):
            self._recorder = Recorder(
                self._store,
                rollout=rollout.id,
                worker=self._worker,
                every_seconds=self.settings.rollout.observe_seconds,
            )
        routes = Routes(self.current, rollout)
        if rollout is not None:
            challenger = self._hold(rollout, rollout.challenger.uri, rollout.challenger.sha256)
            champion = self._hold(rollout, rollout.champion.uri, rollout.champion.sha256)
            is_refused = (
                challenger is None and f"{rollout.challenger.uri}@{rollout.challenger.sha256}" in self._refusals
            )
            routes = replace(routes, challenger=challenger, champion=champion, is_refused=is_refused)
        self._routes = routes
        wanted = {rollout.challenger.sha256, rollout.champion.sha256} if rollout else set()
        self._held = {sha256: one for sha256, one in self._held.items() if sha256 in wanted}
        if rollout is None and self._recorder is not None:
            self._recorder.flush(at_once=True)
            self._recorder = None
        if (rollout and (rollout.id, rollout.step)) != (before and (before.id, before.step)):
            self._say_stage(before, rollout)

    def _hold(self, rollout: Rollout, where: str, sha256: str) -> Recommender | None:
        """A bundle of the rollout, loaded where this worker has not got it; None where it cannot be loaded yet."""
        assert self.current is not None
        assert self._recorder is not None
        is_challenger = sha256 == rollout.challenger.sha256
        key = f"{where}@{sha256}"
        if self.current.bundle.sha256 == sha256:
            self._held[sha256] = self.current
        elif sha256 not in self._held and not self._must_wait(key):
            try:
                self._held[sha256] = self._load(where, sha256)
                self._refusals.pop(key, None)
            except Exception as error:  # noqa: BLE001  # whatever a challenger does when it is loaded, the champion serves
                self._refuse(key, error, is_champion=False)
                if is_challenger:
                    self._recorder.refused(str(error))
        if is_challenger:
            self._recorder.holds(sha256 in self._held)
        return self._held.get(sha256)

    def _say_stage(self, before: Rollout | None, now: Rollout | None) -> None:
        if before is not None:
            metrics.ROLLOUT_INFO.labels(before.step, before.challenger.sha256[:12]).set(0)
        if now is not None:
            metrics.ROLLOUT_INFO.labels(now.step, now.challenger.sha256[:12]).set(1)
        logger.info("Rollout: %s.", f"{now.step} of {now.challenger.sha256[:12]}" if now else "none runs")

    def _tell(self) -> None:
        """Say in the store what this worker answers with: at once when it changes, and else now and then."""
        assert self.current is not None
        rollout = self._routes.rollout if self._routes else None
        presence = Presence(
            worker=self._worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            bundle=self.current.bundle.sha256,
            rollout=rollout.id if rollout else None,
            seen_at=wall_clock(),
        )
        is_known = self._presence is not None and presence == self._presence.model_copy(
            update={"seen_at": presence.seen_at}
        )
        if is_known and time.monotonic() - self._present_at < HEARTBEAT_SECONDS:
            return
        try:
            write_presence(self._store, presence)
        except OSError as error:
            logger.warning("Whether this worker lives is not written to the store: %s", error)
        else:
            self._presence, self._present_at = presence, time.monotonic()

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
        if self._recorder is not None:
            self._recorder.flush(at_once=True)
        try:
            if self._presence is not None:
                delete_presence(self._store, self._worker)
        except OSError as error:
            logger.warning("The store still lists this worker: %s", error)

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
        if self._routes is not None:
            self._routes = replace(self._routes, current=recommender)
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

    def _must_wait(self, key: str) -> bool:
        refusal = self._refusals.get(key)
        return refusal is not None and time.monotonic() < refusal.next_try

    def _refuse(self, key: str, error: Exception, *, is_champion: bool = True) -> None:
        """Note why a bundle was not taken, and try it again ever more rarely. Said once, not at each try."""
        before = self._refusals.get(key)
        wait = FIRST_RETRY_SECONDS if before is None else min(before.wait_seconds * 2, LONGEST_RETRY_SECONDS)
        if before is None or before.reason != str(error):
            serving = self.current.bundle.sha256[:12] if self.current else "none"
            logger.error("A bundle was refused, %s goes on serving: %s", serving, error)
            metrics.BUNDLE_LOADS.labels("refused").inc()
        self._refusals[key] = Refusal(str(error), wait, time.monotonic() + wait)
        if is_champion:
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
