"""The one door to the online store: a known user's history and statistics, or the plain fact that it is down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from components.core.errors import FeatureStoreError
from components.core.lazy import LazySequence
from components.core.settings import Settings

if TYPE_CHECKING:
    from feature_repo.stored_users import StoredUsers, UserFeatures


Floats = npt.NDArray[np.float32]


class OnlineUser(NamedTuple):
    """A user as the online store knows them, aged to the service's clock."""

    items: Sequence[str]  # distinct, most recent first
    weights: Sequence[float] | Floats  # sum of event weights
    ages_days: Sequence[float] | Floats  # since the last event with the item
    statistics: Mapping[str, float]
    age_seconds: float  # how old the features are
    moment: datetime | None = None  # what the features know lies before it; None: so many seconds ago

    def known_until(self, now: datetime) -> datetime:
        return now - timedelta(seconds=self.age_seconds) if self.moment is None else self.moment


class OnlineStoreError(Exception):
    """The online store cannot be read; the message names no user."""


class UserReader(Protocol):
    """Reads users; None for one that the store does not know. Raises OnlineStoreError."""

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None: ...

    def read_at_once(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        """As `read`; raises WouldWaitError where the answer would have to be waited for."""

    def read_many(self, user_ids: Sequence[str], *, now: datetime) -> Sequence[OnlineUser | None]: ...


class FeastReader:
    """The project's online store, through `feature_repo.online`."""

    def __init__(self, settings: Settings) -> None:
        # Protobuf and Redis are imported by the worker that opens the store, before the first request.
        from feature_repo.online import OnlineFeatures
        from feature_repo.stored_users import SERVED

        self._features = OnlineFeatures(settings, SERVED)

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        with _as_online_store_error():
            return _online_user(self._features.read(user_id, now=now), now)

    def read_at_once(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        with _as_online_store_error():
            return _online_user(self._features.read_at_once(user_id, now=now), now)

    def read_many(self, user_ids: Sequence[str], *, now: datetime) -> OnlineUsers:
        with _as_online_store_error():
            return OnlineUsers(self._features.read_many(user_ids, now=now), now=now)


class OnlineUsers(LazySequence[OnlineUser | None]):
    """Users as the store answers them: most of them as columns, and each by itself where somebody looks."""

    def __init__(self, stored: StoredUsers, *, now: datetime) -> None:
        self._stored, self._now = stored, now
        self.columns = stored.columns()
        others = set(range(len(stored))).difference(self.columns.places_P.tolist())
        # Now, so that what is wrong with the store is met where it is read.
        self._others = {place: _online_user(stored[place], now) for place in others}

    def __len__(self) -> int:
        return len(self._stored)

    def make(self, at: int) -> OnlineUser | None:
        return self._others[at] if at in self._others else _online_user(self._stored[at], self._now)


@contextmanager
def _as_online_store_error() -> Iterator[None]:
    try:
        yield
    except FeatureStoreError as error:
        raise OnlineStoreError(str(error)) from error


def _online_user(features: UserFeatures | None, now: datetime) -> OnlineUser | None:
    if features is None:
        return None
    return OnlineUser(
        items=features.history_items,
        weights=features.history_weights,
        ages_days=features.history_ages_days,
        statistics={name: value for name, value in features.statistics.items() if value is not None},
        age_seconds=max(now.timestamp() - features.event_timestamp.timestamp(), 0.0),
        moment=features.event_timestamp,
    )
