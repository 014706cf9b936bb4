"""The one reader of online features. The service asks it for a user's history and statistics, aged to now.

It reads the online store's rows itself (online_rows.py): Feast's SDK would cost a worker some 300 MB and a request
several milliseconds. What it answers is what Feast answers; tests hold the two against each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.core.errors import FeatureStoreError, WouldWaitError
from components.core.schemas import USER_HISTORY, USER_STATISTICS
from components.core.settings import Settings
from feature_repo.layout import FeastHome
from feature_repo.online_rows import RowReader, UserRows, decode, open_rows
from feature_repo.stored_values import StoredStrings, stored_floats, stored_number

USERS_A_READ = 500
DAY = timedelta(days=1)
KEYS = ("user_id", "event_timestamp", "created_timestamp")
VIEWS = {
    "user_history": tuple(name for name in USER_HISTORY.names if name not in KEYS),
    "user_statistics": tuple(name for name in USER_STATISTICS.names if name not in KEYS),
}
SCALAR_STATISTICS: tuple[str, ...] = tuple(
    name for name in VIEWS["user_statistics"] if not pa.types.is_list(USER_STATISTICS.field(name).type)
)
SERVED = {
    "user_history": ("history_items", "history_weights", "history_ages_days"),
    "user_statistics": SCALAR_STATISTICS,
}
"""What a recommendation needs: half of the columns, and half of what reading costs."""


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    """What is known of a user. Lists run from the most recent item to the oldest; ages are at the time of reading."""

    user_id: str
    event_timestamp: datetime
    """The moment these features are of: their age is the service's clock less this."""
    history_items: Sequence[str]
    history_weights: npt.NDArray[np.float32]
    history_ages_days: npt.NDArray[np.float32]
    statistics: Mapping[str, float | None]
    """The scalar columns of USER_STATISTICS; None where a user has no such figure."""
    others: Mapping[str, bytes]
    """The columns as they are stored: who asks for one of the next three pays for it. They are empty where the reader
    was not opened for them."""

    @cached_property
    def recent_items(self) -> Sequence[str]:
        return _list(self.others, "recent_items")

    @cached_property
    def recent_times(self) -> Sequence[datetime]:
        return _list(self.others, "recent_times")

    @cached_property
    def category_shares(self) -> Mapping[str, float]:
        names, shares = _list(self.others, "top_categories"), _list(self.others, "top_category_shares")
        return dict(zip(names, shares, strict=True))


class OnlineFeatures:
    """Reads the online store of one shop. Safe to share between threads."""

    def __init__(self, settings: Settings, views: Mapping[str, Sequence[str]] = VIEWS) -> None:
        """`views`: the columns to read, at least those of `SERVED`."""
        self.home = FeastHome.of(settings)
        self._views = views
        self._lock = threading.Lock()
        self._opened: RowReader | None = None
        self._opened_file: int | None = None

    def read(self, user_id: str, *, now: datetime) -> UserFeatures | None:
        """Features of a user, aged to `now`; None for a user that the store does not know.

        Raises FeatureStoreError where the store cannot be read.
        """
        return self.read_many([user_id], now=now)[0]

    def read_many(self, user_ids: Sequence[str], *, now: datetime) -> list[UserFeatures | None]:
        """As `read`, one answer a user in the order asked."""
        found: list[UserFeatures | None] = []
        for start in range(0, len(user_ids), USERS_A_READ):
            found.extend(self._read_batch(user_ids[start : start + USERS_A_READ], now))
        return found

    def read_at_once(self, user_id: str, *, now: datetime) -> UserFeatures | None:
        """As `read`, for a caller who may not wait; raises WouldWaitError where the store's answer takes waiting for
        a writer's lock or for a server."""
        return self._features_of([user_id], now, lambda rows: [rows.read_at_once(user_id)])[0]

    def _read_batch(self, user_ids: Sequence[str], now: datetime) -> list[UserFeatures | None]:
        return self._features_of(user_ids, now, lambda rows: rows.read(user_ids))

    def _features_of(
        self, user_ids: Sequence[str], now: datetime, read: Callable[[RowReader], list[UserRows]]
    ) -> list[UserFeatures | None]:
        try:
            rows = read(self._open())
            return [_user_features(user_id, found, now) for user_id, found in zip(user_ids, rows, strict=True)]
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
                self._opened = open_rows(self.home, self._views)
                self._opened_file = inode
            return self._opened

    def _forget(self) -> None:
        # Not closed: another thread may be reading through it. What nobody holds closes itself.
        with self._lock:
            self._opened = None


def _user_features(user_id: str, rows: UserRows, now: datetime) -> UserFeatures | None:
    if "user_history" not in rows:
        return None
    event_seconds, history = rows["user_history"]
    _, known = rows.get("user_statistics", (0.0, {}))
    event_timestamp = datetime.fromtimestamp(event_seconds, UTC)
    # Never younger than they were: a clock behind the snapshot must not make ages negative.
    elapsed_days = max(now - event_timestamp, timedelta(0)) / DAY
    statistics = {name: stored_number(known[name], decode) if name in known else None for name in SCALAR_STATISTICS}
    if statistics["recency_days"] is not None:
        statistics["recency_days"] += elapsed_days
    return UserFeatures(
        user_id=user_id,
        event_timestamp=event_timestamp,
        history_items=StoredStrings(history.get("history_items", b""), decode),
        history_weights=stored_floats(history.get("history_weights", b""), decode),
        history_ages_days=stored_floats(history.get("history_ages_days", b""), decode) + np.float32(elapsed_days),
        statistics=statistics,
        others={**known, **history},
    )


def _list(columns: Mapping[str, bytes], name: str) -> list[Any]:
    """A stored list; empty where nothing is stored."""
    return (decode(columns[name]) if name in columns else None) or []
