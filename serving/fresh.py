"""What users did since their features were made, shared by all workers: it counts from their next recommendation on.

    FreshStore            where it lives: SqliteFresh on one machine (fresh_sqlite.py), RedisFresh across pods
    └── FreshBehaviour    a worker's view of it: users it has asked for, until the store says that they changed

A worker asks the store a few times a second whose events are new and forgets those users' copies, so a recommendation
costs one look into a dictionary, and is never older than that interval.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from components.core.errors import WouldWaitError
from components.core.settings import Settings

logger = logging.getLogger(__name__)

# Users whose events a worker keeps at hand; of strangers, that they have none.
USERS_AT_HAND = 50_000


class FreshEvent(NamedTuple):
    """One event of a user."""

    event_id: str
    item_id: str
    weight: float  # what it says of a taste, relative to a purchase
    seconds: float  # since 1970


class Charge(NamedTuple):
    """What one event takes of its user's weight of a day."""

    user: str  # pseudonym
    weight: float


class Caps(NamedTuple):
    """What the events of one user may weigh in a day: in all, and those that one API key sends."""

    user: float
    key_and_user: float


class Changes(NamedTuple):
    """Users whose events changed since a stamp; None: any may have."""

    users: Sequence[str] | None
    stamp: str


class FreshStoreError(Exception):
    """The fresh store cannot be read or written; the message names no user."""


class FreshStore(Protocol):
    """Users are pseudonyms. Every method raises FreshStoreError where the store is away."""

    is_remote: bool
    """A server that has to be waited for, and not a file of this machine."""

    def add(self, events: Sequence[tuple[str, FreshEvent]]) -> None:
        """Keep events of users; one with an event_id that the user has already is not kept twice."""

    def read(self, users: Sequence[str]) -> list[list[FreshEvent]]: ...

    def forget(self, user: str) -> int:
        """Delete a user's events; returns how many there were."""

    def changes(self, since: str | None) -> Changes: ...

    def spend(self, charges: Sequence[Charge], *, day: str, key: str, caps: Caps) -> list[bool]:
        """Whether each event still fits under the caps; those that do are charged, at once for all workers."""

    def close(self) -> None: ...


def redis_url(settings: Settings) -> str | None:
    """The Redis that holds fresh behaviour; None: SQLite in the project's home."""
    url = settings.serve.fresh_store or settings.feature_store.online_url
    return None if url is None else url.get_secret_value()


def open_fresh_store(settings: Settings) -> FreshStore:
    """The store that the settings name; it is opened at its first use."""
    url = redis_url(settings)
    if url is not None:
        from serving.fresh_redis import RedisFresh

        return RedisFresh(url, project=settings.project, limits=settings.serve)
    from serving.fresh_sqlite import SqliteFresh

    return SqliteFresh(settings.project_home / "service" / "fresh.db", limits=settings.serve)


class FreshBehaviour:
    """A worker's view of the fresh store. Safe to share between threads."""

    def __init__(self, store: FreshStore, *, poll_seconds: float, users_at_hand: int = USERS_AT_HAND) -> None:
        self.store = store
        self._poll_seconds = poll_seconds
        self._users_at_hand = users_at_hand
        self._at_hand: dict[str, list[FreshEvent]] = {}
        self._epoch = 0  # moves with every change that is seen, so that a slow read never overwrites a newer state
        self._stamp: str | None = None
        self._is_down = False
        self._stopped = threading.Event()
        self._watching: threading.Thread | None = None

    def of(self, user: str, *, at_once: bool = False) -> list[FreshEvent]:
        """A user's events. Raises FreshStoreError at once while the store is away; and WouldWaitError where they are
        wanted at once and a server would have to be asked."""
        found = self._at_hand.get(user)
        if found is not None:
            return found
        if at_once and self.store.is_remote and not self._is_down:
            raise WouldWaitError
        return self.of_many([user])[0]

    def of_many(self, users: Sequence[str]) -> list[list[FreshEvent]]:
        """As `of`, one answer a user, in one read."""
        at_hand = self._at_hand
        missing = [user for user in users if user not in at_hand]
        read: dict[str, list[FreshEvent]] = {}
        if missing:
            if self._is_down:
                raise FreshStoreError("The fresh store is away.")
            epoch = self._epoch
            read = dict(zip(missing, self._asked(missing), strict=True))
            if epoch == self._epoch:
                if len(self._at_hand) + len(read) > self._users_at_hand:
                    self._at_hand = {}
                self._at_hand.update(read)
        return [read[user] if user in read else at_hand.get(user, []) for user in users]

    def add(self, events: Sequence[tuple[str, FreshEvent]]) -> None:
        """Keep events; this worker's next answer reflects them, the others' after their next look."""
        try:
            self.store.add(events)
        except FreshStoreError as error:
            self._lost(error)
            raise
        self._forget_copies({user for user, _ in events})

    def forget(self, user: str) -> int:
        count = self.store.forget(user)
        self._forget_copies({user})
        return count

    def look(self) -> None:
        """Ask whose events changed. Never raises: while the store is away, `of` says so."""
        try:
            changes = self.store.changes(self._stamp)
        except FreshStoreError as error:
            self._lost(error)
            return
        if self._is_down:
            logger.info("The fresh store is back.")
            self._is_down = False
            self._forget_copies(None)
        elif changes.users is None or changes.users:
            self._forget_copies(None if changes.users is None else set(changes.users))
        self._stamp = changes.stamp

    def start(self) -> None:
        """Look again and again, in a thread of its own, until `stop`."""
        self._watching = threading.Thread(target=self._watch, name="fresh-behaviour", daemon=True)
        self._watching.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._watching is not None:
            self._watching.join(timeout=5)
        self.store.close()

    def _watch(self) -> None:
        while not self._stopped.wait(self._poll_seconds):
            try:
                self.look()
            except Exception:
                # A defect of ours must not end the looking: a worker would serve old copies for good.
                logger.exception("Looking for fresh behaviour failed.")
                self._forget_copies(None)

    def _asked(self, users: Sequence[str]) -> list[list[FreshEvent]]:
        try:
            return self.store.read(users)
        except FreshStoreError as error:
            self._lost(error)
            raise

    def _lost(self, error: FreshStoreError) -> None:
        if not self._is_down:
            logger.warning("The fresh store is away, lists go on without it: %s", error)
        # Nobody waits for it again until a look finds it; without a thread that looks, each call tries.
        self._is_down = self._watching is not None
        self._forget_copies(None)

    def _forget_copies(self, users: set[str] | None) -> None:
        self._epoch += 1
        if users is None:
            self._at_hand = {}
        else:
            for user in users:
                self._at_hand.pop(user, None)
