"""The one door to the online store: a known user's history and statistics, or the plain fact that it is down."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from components.core.settings import Settings

logger = logging.getLogger(__name__)


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


class NoOnlineStore:
    """Stands in where the online store cannot be opened: every read fails, so that answers say what they lack."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        raise OnlineStoreError(self.reason)


def open_reader(settings: Settings) -> UserReader:
    """The reader of this project's online store."""
    return NoOnlineStore("there is no online store yet")
