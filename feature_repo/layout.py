"""Where a project's feature store lives. Imports nothing of Feast, so that asking costs nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.core.settings import Settings

# Each shop has a folder of its own, so all of them use one name inside Feast. A shop's name could not serve:
# Feast puts its project's name into SQL unquoted, where a hyphen is a minus.
FEAST_PROJECT = "basketweave"
ONLINE_VIEWS = ("user_history", "user_statistics")
USER_SERVICE = "recommender_v1"
ITEM_SERVICE = "items_v1"


@dataclass(frozen=True, kw_only=True)
class FeastHome:
    """The folder of one shop's registry, online store and offline files."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings) -> FeastHome:
        return cls(folder=settings.project_home / "feast")

    @property
    def registry(self) -> Path:
        return self.folder / "registry.db"

    @property
    def online(self) -> Path:
        return self.folder / "online.db"

    @property
    def lock(self) -> Path:
        return self.folder / "writer.lock"

    def offline(self, view: str) -> Path:
        """The parquet file that a view's point-in-time joins read."""
        return self.folder / "offline" / f"{view}.parquet"

    def online_moment(self) -> datetime | None:
        """The moment that every user's online row has reached; None where the store is missing, empty or unreadable."""
        if not (self.online.is_file() and self.registry.is_file()):
            return None
        moments = []
        try:
            with closing(sqlite3.connect(f"file:{self.online}?mode=ro", uri=True)) as connection:
                for view in ONLINE_VIEWS:
                    query = f'SELECT min(event_ts) + 0 FROM "{FEAST_PROJECT}_{view}"'  # noqa: S608 (our own names)
                    moments.append(connection.execute(query).fetchone()[0])
        except sqlite3.Error:
            return None
        return None if None in moments else datetime.fromtimestamp(min(moments), UTC)
