"""The one reader of online features. The service asks it for a user's history and statistics, aged to now.

It goes through Feast's SDK in process: quick to ask, slow and large to import, so import this before the first request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from feast import FeatureService, FeatureStore

from components.core.errors import FeatureStoreError
from components.core.settings import Settings
from feature_repo.definitions import SCALAR_STATISTICS
from feature_repo.layout import USER_SERVICE, FeastHome
from feature_repo.store import repo_config

USERS_A_READ = 500
DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    """What is known of a user. Lists run from the most recent item to the oldest; ages are at the time of reading."""

    user_id: str
    event_timestamp: datetime
    """The moment these features are of: their age is the service's clock less this."""
    history_items: Sequence[str]
    history_weights: npt.NDArray[np.float32]
    history_ages_days: npt.NDArray[np.float32]
    recent_items: Sequence[str]
    recent_times: Sequence[datetime]
    statistics: Mapping[str, float | None]
    """The scalar columns of USER_STATISTICS; None where a user has no such figure."""
    category_shares: Mapping[str, float]


class OnlineFeatures:
    """Reads the online store of one shop. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.home = FeastHome.of(settings)
        self._lock = threading.Lock()
        self._opened: tuple[FeatureStore, FeatureService] | None = None
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

    def _read_batch(self, user_ids: Sequence[str], now: datetime) -> Iterable[UserFeatures | None]:
        try:
            store, service = self._open()
            columns = store.get_online_features(
                features=service, entity_rows=[{"user_id": user_id} for user_id in user_ids]
            ).to_dict(include_event_timestamps=True)
        except Exception as error:
            # Each online store fails in its own types, and all of them mean: go on without, and open it anew.
            self._opened = None
            raise FeatureStoreError(
                f"The online feature store {self.home.online} cannot be read ({type(error).__name__}). "
                "Run the features step, or check that the store is up."
            ) from error
        return [_user_features(columns, row, now) for row in range(len(user_ids))]

    def _open(self) -> tuple[FeatureStore, FeatureService]:
        """The opened store; opened again after a failure, and where the file was replaced.

        The file is looked at on every read: SQLite would make an empty one, or go on with one that was deleted.
        """
        inode = self.home.online.stat().st_ino
        with self._lock:
            if self._opened is None or inode != self._opened_file:
                store = FeatureStore(config=repo_config(self.home))
                self._opened = store, store.get_feature_service(USER_SERVICE)
                self._opened_file = inode
            return self._opened


def _user_features(columns: dict[str, list[Any]], row: int, now: datetime) -> UserFeatures | None:
    event_seconds = columns["history_items__ts"][row]
    if not event_seconds:
        return None
    event_timestamp = datetime.fromtimestamp(event_seconds, UTC)
    # Never younger than they were: a clock behind the snapshot must not make ages negative.
    elapsed_days = max(now - event_timestamp, timedelta(0)) / DAY
    statistics = {name: columns[name][row] for name in SCALAR_STATISTICS}
    if statistics["recency_days"] is not None:
        statistics["recency_days"] += elapsed_days
    ages = np.asarray(columns["history_ages_days"][row] or [], np.float32)
    return UserFeatures(
        user_id=columns["user_id"][row],
        event_timestamp=event_timestamp,
        history_items=columns["history_items"][row] or [],
        history_weights=np.asarray(columns["history_weights"][row] or [], np.float32),
        history_ages_days=ages + np.float32(elapsed_days),
        recent_items=columns["recent_items"][row] or [],
        recent_times=columns["recent_times"][row] or [],
        statistics=statistics,
        category_shares=dict(
            zip(columns["top_categories"][row] or [], columns["top_category_shares"][row] or [], strict=True)
        ),
    )
