"""The one reader of online features. The service asks it for a user's history and statistics, aged to now.

It reads the online store's rows itself (online_rows.py): Feast's SDK would cost a worker some 300 MB and a request
several milliseconds. What it answers is what Feast answers; tests hold the two against each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import methodcaller
from typing import TypeVar

from components.core.errors import FeatureStoreError, WouldWaitError
from components.core.settings import Settings
from feature_repo.layout import FeastHome
from feature_repo.online_rows import Answer, Fields, RowReader, open_rows
from feature_repo.stored_users import VIEWS, StoredUsers, UserFeatures

USERS_A_READ = 500

Answered = TypeVar("Answered")


class OnlineFeatures:
    """Reads the online store of one shop. Safe to share between threads."""

    def __init__(self, settings: Settings, views: Mapping[str, Sequence[str]] = VIEWS) -> None:
        """`views`: the columns to read, at least those of `SERVED`."""
        self.home = FeastHome.of(settings)
        self._fields = Fields(views)
        self._lock = threading.Lock()
        self._opened: RowReader | None = None
        self._opened_file: int | None = None

    def read(self, user_id: str, *, now: datetime) -> UserFeatures | None:
        """Features of a user, aged to `now`; None for a user that the store does not know.

        Raises FeatureStoreError where the store cannot be read.
        """
        return self.read_many([user_id], now=now)[0]

    def read_many(self, user_ids: Sequence[str], *, now: datetime) -> StoredUsers:
        """As `read`, one answer a user in the order asked."""
        answers: list[Answer | None] = []
        for start in range(0, len(user_ids), USERS_A_READ):
            asked = user_ids[start : start + USERS_A_READ]
            answers += self._answered(methodcaller("read", asked))
        return StoredUsers(user_ids, answers, self._fields, now=now)

    def read_at_once(self, user_id: str, *, now: datetime) -> UserFeatures | None:
        """As `read`, for a caller who may not wait; raises WouldWaitError where the store's answer takes waiting for
        a writer's lock or for a server."""
        answer = self._answered(methodcaller("read_at_once", user_id))
        return StoredUsers([user_id], [answer], self._fields, now=now)[0]

    def _answered(self, read: Callable[[RowReader], Answered]) -> Answered:
        try:
            return read(self._open())
        except WouldWaitError:
            raise
        except Exception as error:
            # Each online store fails in its own types, and all of them mean: go on without, and open it anew.
            self._forget()
            raise FeatureStoreError(
                f"The online feature store {self.home.online_name} cannot be read ({type(error).__name__}). "
                "Run the features step, or check that the store is up."
            ) from error

    def _open(self) -> RowReader:
        """The opened store; opened again after a failure, and where the file was replaced.

        The file is looked at on every read: SQLite would go on with one that was deleted.
        """
        inode = self.home.online_file_id()
        with self._lock:
            if self._opened is None or inode != self._opened_file:
                self._opened = open_rows(self.home, self._fields)
                self._opened_file = inode
            return self._opened

    def _forget(self) -> None:
        # Not closed: another thread may be reading through it. What nobody holds closes itself.
        with self._lock:
            self._opened = None
