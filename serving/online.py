"""The one door to the online store: a known user's history and statistics, or the plain fact that it is down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from components.core.errors import FeatureStoreError
from components.core.settings import Settings


@dataclass(frozen=True)
class OnlineUser:
    """A user as the online store knows them, aged to the service's clock."""

    items: Sequence[str]  # distinct, most recent first
    weights: Sequence[float]  # sum of event weights
    ages_days: Sequence[float]  # since the last event with the item
    statistics: Mapping[str, float]
    age_seconds: float  # how old the features are


class OnlineStoreError(Exception):
    """The online store cannot be read; the message names no user."""


class UserReader(Protocol):
    """Reads one user; None for a user that the store does not know."""

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None: ...


class FeastReader:
    """The project's online store, through `feature_repo.online`."""

    def __init__(self, settings: Settings) -> None:
        # Feast is the heaviest import of a worker; here it is paid before the first request.
        from feature_repo.online import OnlineFeatures

        self._features = OnlineFeatures(settings)

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        try:
            found = self._features.read(user_id, now=now)
        except FeatureStoreError as error:
            raise OnlineStoreError(str(error)) from error
        if found is None:
            return None
        return OnlineUser(
            items=found.history_items,
            weights=found.history_weights.tolist(),
            ages_days=found.history_ages_days.tolist(),
            statistics={name: value for name, value in found.statistics.items() if value is not None},
            age_seconds=max((now - found.event_timestamp).total_seconds(), 0.0),
        )
