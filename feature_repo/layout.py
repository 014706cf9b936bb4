"""Where a project's feature store lives. Imports nothing of Feast, so that asking costs nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pydantic import SecretStr

from components.core.settings import Settings

# A shop whose store is files has a folder of its own, so all of them use one name inside Feast.
FEAST_PROJECT = "basketweave"
ONLINE_VIEWS = ("user_history", "user_statistics")
USER_SERVICE = "recommender_v1"
ITEM_SERVICE = "items_v1"


@dataclass(frozen=True, kw_only=True)
class FeastHome:
    """One shop's registry, online store and offline files: a folder, with servers in place of some of it."""

    folder: Path
    online_url: SecretStr | None = None
    """Of the Redis that is the online store; None: SQLite in the folder."""
    registry_url: SecretStr | None = None
    """Of the PostgreSQL that is the registry; None: a file in the folder."""
    online_timeout_seconds: float = 1
    feast_project: str = FEAST_PROJECT
    """The shop's name inside Feast."""

    @classmethod
    def of(cls, settings: Settings) -> FeastHome:
        servers = settings.feature_store
        is_shared = servers.online_url is not None or servers.registry_url is not None
        return cls(
            folder=settings.project_home / "feast",
            online_url=servers.online_url,
            registry_url=servers.registry_url,
            online_timeout_seconds=servers.online_timeout_seconds,
            feast_project=f"{FEAST_PROJECT}_{_word(settings.project)}" if is_shared else FEAST_PROJECT,
        )

    @property
    def registry(self) -> Path:
        return self.folder / "registry.db"

    @property
    def online(self) -> Path:
        return self.folder / "online.db"

    @cached_property
    def _online_file(self) -> str:
        return str(self.online)

    @property
    def lock(self) -> Path:
        return self.folder / "writer.lock"

    def offline(self, view: str) -> Path:
        """The parquet file that a view's point-in-time joins read."""
        return self.folder / "offline" / f"{view}.parquet"

    @property
    def online_name(self) -> str:
        """What to call the online store in a message: a server's password is never in it."""
        return str(self.online) if self.online_url is None else "in Redis (feature_store.online_url)"

    def online_file_id(self) -> int | None:
        """Inode of the online store's file, so that another one in its place is noticed; None for a server.

        Raises FileNotFoundError where the file is missing.
        """
        return os.stat(self._online_file).st_ino if self.online_url is None else None

    @property
    def moment_key(self) -> str:
        """Where Redis keeps the moment that every user's row has reached, in seconds since 1970."""
        return f"{self.feast_project}:moment"

    def online_moment(self) -> datetime | None:
        """The moment that every user's online row has reached; None where the store is missing, empty or unreadable."""
        if self.registry_url is None and not self.registry.is_file():
            return None
        return self._redis_moment() if self.online_url is not None else self._sqlite_moment()

    def _sqlite_moment(self) -> datetime | None:
        if not self.online.is_file():
            return None
        moments = []
        try:
            with closing(sqlite3.connect(f"file:{self.online}?mode=ro", uri=True)) as connection:
                for view in ONLINE_VIEWS:
                    query = f'SELECT min(event_ts) FROM "{self.feast_project}_{view}"'  # noqa: S608 (our own names)
                    moments.append(connection.execute(query).fetchone()[0])
        except sqlite3.Error:
            return None
        return None if None in moments else datetime.fromtimestamp(min(moments), UTC)

    def _redis_moment(self) -> datetime | None:
        import redis

        assert self.online_url is not None
        try:
            with closing(
                redis.Redis.from_url(
                    self.online_url.get_secret_value(),
                    socket_connect_timeout=5,
                    socket_timeout=self.online_timeout_seconds,
                )
            ) as client:
                found = client.get(self.moment_key)
        except redis.RedisError:
            return None
        return datetime.fromtimestamp(int(str(found, "ascii")), UTC) if isinstance(found, bytes) else None


def _word(project: str) -> str:
    """A shop's name as Feast takes one: no hyphen, and still another one for each shop."""
    return project.replace("_", "_u").replace("-", "_h")
