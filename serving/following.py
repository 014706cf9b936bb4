"""A worker's part in a rollout: which bundles it holds beside the pointer's, what routes follow, what is counted.

Both bundles of a rollout are held, so going on to production or back to the champion loads nothing. They are loaded in
a thread of their own, one after the other: the pointer is followed meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from components.core.artifact import ArtifactRef
from components.core.errors import BasketweaveError
from components.core.rollout import Rollout, place_of, read_barred, read_rollout
from components.core.store import Store
from serving import metrics
from serving.loading import Loading
from serving.observations import Recorder
from serving.rollout import Routes

if TYPE_CHECKING:
    from serving.recommend import Recommender

logger = logging.getLogger(__name__)

# A bundle that was refused is tried again, ever more rarely: the store may have been away for a moment.
FIRST_RETRY_SECONDS = 2.0
LONGEST_RETRY_SECONDS = 60.0


@dataclass
class Refusal:
    """A bundle that could not be loaded, and when it is tried again."""

    reason: str
    wait_seconds: float
    next_try: float


class Refusals:
    """What was refused, by place and hash. Each is said once, not at each try."""

    def __init__(self) -> None:
        self._by_key: dict[str, Refusal] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def must_wait(self, key: str) -> bool:
        refusal = self._by_key.get(key)
        return refusal is not None and time.monotonic() < refusal.next_try

    def add(self, key: str, error: Exception, *, serving: str) -> None:
        before = self._by_key.get(key)
        wait = FIRST_RETRY_SECONDS if before is None else min(before.wait_seconds * 2, LONGEST_RETRY_SECONDS)
        if before is None or before.reason != str(error):
            logger.error("A bundle was refused, %s goes on serving: %s", serving, error)
            metrics.BUNDLE_LOADS.labels("refused").inc()
        self._by_key[key] = Refusal(str(error), wait, time.monotonic() + wait)

    def forget(self, key: str) -> None:
        self._by_key.pop(key, None)

    def clear(self) -> None:
        self._by_key.clear()


def key_of(where: str, sha256: str | None) -> str:
    return f"{where}@{sha256}"


class RolloutFollower:
    """Holds what a rollout needs. `routes` is replaced whole."""

    def __init__(
        self,
        store: Store,
        *,
        worker: str,
        every_seconds: float,
        load: Callable[[str, str], Recommender],
        refusals: Refusals,
    ) -> None:
        self.routes: Routes | None = None
        self.recorder: Recorder | None = None
        self.held: dict[str, Recommender] = {}
        self.loading: Loading | None = None
        self._refused: dict[str, Exception] = {}  # since the last look
        self._store = store
        self._worker = worker
        self._every_seconds = every_seconds
        self._load = load
        self._refusals = refusals
        self._unread: str | None = None

    @property
    def rollout(self) -> Rollout | None:
        return self.routes.rollout if self.routes is not None else None

    def swapped(self, current: Recommender) -> None:
        """The pointer's bundle is another one now."""
        if self.routes is not None:
            self.routes = replace(self.routes, current=current)

    def take_up(self, *, serving: str) -> None:
        """Hold what has been loaded since the last look; one that failed is refused. `serving`: what answers."""
        if self.loading is None or not self.loading.is_done():
            return
        done, self.loading = self.loading, None
        key = key_of(done.ref.uri, done.ref.sha256)
        try:
            self.held[done.ref.sha256] = done.result()
            self._refusals.forget(key)
        except Exception as error:  # noqa: BLE001  # whatever a challenger does as it is loaded, the champion serves
            self._refusals.add(key, error, serving=serving)
            self._refused[done.ref.sha256] = error

    def follow(self, current: Recommender) -> None:
        """Take part in the rollout that runs, as far as its bundles are loaded; `loading` is one that is on its way.

        What cannot be read leaves everything as it is.
        """
        before, rollout = self.rollout, self._read()
        if rollout is not None and (self.recorder is None or self.recorder.rollout != rollout.id):
            self.recorder = Recorder(
                self._store, rollout=rollout.id, worker=self._worker, every_seconds=self._every_seconds
            )
        if rollout is None:
            self.routes, self.held = Routes(current), {}
            self.close()
        else:
            self.routes = self._routes(current, rollout)
        if (rollout and (rollout.id, rollout.step)) != (before and (before.id, before.step)):
            _say_stage(before, rollout)
        if self.recorder is not None:
            self.recorder.flush()

    def observe(self, user_id: str, *, impressions: int = 0, clicks: int = 0) -> None:
        """Feedback of a user, whichever worker gets it."""
        routes = self.routes
        if routes is None or routes.recorder is None or (rollout := routes.rollout) is None:
            return
        if rollout.stage == "shadow":
            return
        place = place_of(user_id, rollout)
        routes.recorder.fed_back(rollout.step, place.arm, cluster=place.cluster, impressions=impressions, clicks=clicks)

    def close(self) -> None:
        """Write what was counted last."""
        if self.recorder is not None:
            self.recorder.flush(at_once=True)
            self.recorder = None

    def _read(self) -> Rollout | None:
        try:
            rollout = read_rollout(self._store)
            # A bar is the last word: a rollout that somebody writes after it is none.
            if rollout is not None and rollout.challenger.sha256 in read_barred(self._store):
                rollout = None
        except (BasketweaveError, OSError) as error:
            if str(error) != self._unread:
                logger.error("The rollout cannot be read, and everything stays as it is: %s", error)
            self._unread = str(error)
            return self.rollout
        self._unread = None
        return rollout

    def _routes(self, current: Recommender, rollout: Rollout) -> Routes:
        assert self.recorder is not None
        wanted = {rollout.challenger.sha256, rollout.champion.sha256}
        challenger = self._hold(current, rollout.challenger)
        champion = self._hold(current, rollout.champion)
        # A store that is away says nothing of the bundle.
        error, self._refused = self._refused.get(rollout.challenger.sha256), {}
        if error is not None and not isinstance(error, OSError):
            self.recorder.refused(str(error))
        self.recorder.holds(challenger is not None)
        self.held = {sha256: one for sha256, one in self.held.items() if sha256 in wanted}
        is_refused = challenger is None and key_of(rollout.challenger.uri, rollout.challenger.sha256) in self._refusals
        return Routes(current, rollout, challenger, champion, is_refused, self.recorder)

    def _hold(self, current: Recommender, ref: ArtifactRef) -> Recommender | None:
        """The bundle; None where this worker has not got it yet, and loads it as soon as no other is on its way."""
        if current.bundle.sha256 == ref.sha256:
            self.held[ref.sha256] = current
        elif (
            ref.sha256 not in self.held
            and self.loading is None
            and not self._refusals.must_wait(key_of(ref.uri, ref.sha256))
        ):
            self.loading = Loading(ref, self._load)
        return self.held.get(ref.sha256)


def _say_stage(before: Rollout | None, now: Rollout | None) -> None:
    if before is not None:
        metrics.ROLLOUT_INFO.labels(before.step, before.challenger.sha256[:12]).set(0)
    if now is not None:
        metrics.ROLLOUT_INFO.labels(now.step, now.challenger.sha256[:12]).set(1)
    logger.info("Rollout: %s.", f"{now.step} of {now.challenger.sha256[:12]}" if now else "none runs")
