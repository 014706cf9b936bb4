"""Feast's SQLite online store, mended where it would serve wrong features.

1. Feast lets an older row overwrite a newer one; here the newer stays, so a run as of last week cannot age the service.
2. Feast stores times as if UTC were the machine's zone, so another machine reads another age; here they are UTC.
3. Readers wait for a writer; here the file is in WAL mode, and they read on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class NewestSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    # Feast's own class allows its own two names only.
    type: str = "feature_repo.online_store.NewestSqliteOnlineStore"  # type: ignore[assignment]


class NewestSqliteOnlineStore(SqliteOnlineStore):
    """The same tables as Feast's own; see the module for what differs."""

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[OnlineRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        rows = (
            (key, name, value.SerializeToString(), _epoch_seconds(event_time), _epoch_seconds(created or event_time))
            for entity_key, values, event_time, created in data
            for key in (_key_bytes(config, entity_key),)
            for name, value in values.items()
        )
        connection = self._get_conn(config)
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            # The moment is behind the values in a row, and a scan of it would read them all.
            connection.execute(
                f"CREATE INDEX IF NOT EXISTS {_table(config, table, '_event_ts')} ON {_table(config, table)} (event_ts)"
            )
            connection.executemany(
                f"""
                INSERT INTO {_table(config, table)} (entity_key, feature_name, value, event_ts, created_ts)
                VALUES (?, ?, ?, ?, ?)
                ON CONFLICT (entity_key, feature_name) DO UPDATE
                SET value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts
                WHERE (excluded.event_ts, excluded.created_ts) >= (event_ts, created_ts)
                """,  # noqa: S608 (the name is quoted, the values are bound)
                rows,
            )
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        keys = [_key_bytes(config, entity_key) for entity_key in entity_keys]
        found: dict[bytes, tuple[datetime, dict[str, Value]]] = {}
        for key, name, value, event_seconds in self._select(config, table, keys):
            _, values = found.setdefault(key, (datetime.fromtimestamp(event_seconds, UTC), {}))
            values[name] = Value.FromString(value)
        return [found.get(key, (None, None)) for key in keys]

    def keep_only(
        self, config: RepoConfig, table: FeatureView, entity_keys: Iterable[EntityKey], *, known_at: datetime
    ) -> int:
        """Forget the keys that are not among these, unless they are newer than `known_at`. Returns how many rows went.

        A whole snapshot of `known_at` names everybody, so who is not in it has left the log: an erased user, say.
        """
        connection = self._get_conn(config)
        with connection:
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS kept (entity_key BLOB PRIMARY KEY)")
            connection.execute("DELETE FROM kept")
            connection.executemany(
                "INSERT OR IGNORE INTO kept VALUES (?)", ((_key_bytes(config, key),) for key in entity_keys)
            )
            gone = connection.execute(
                f"""
                DELETE FROM {_table(config, table)}
                WHERE event_ts <= ? AND entity_key NOT IN (SELECT entity_key FROM kept)
                """,  # noqa: S608 (the name is quoted, the value is bound)
                (_epoch_seconds(known_at),),
            )
        return int(gone.rowcount)

    def settle(self, config: RepoConfig) -> None:
        """Fold the WAL into the file, so that the file alone is the store: for copies, and for who deletes it."""
        self._get_conn(config).execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def count_at(self, config: RepoConfig, table: FeatureView, moment: datetime) -> int:
        """How many keys hold the values of exactly this moment."""
        query = f"SELECT count(DISTINCT entity_key) FROM {_table(config, table)} WHERE event_ts = ?"  # noqa: S608
        count: int = self._get_conn(config).execute(query, (_epoch_seconds(moment),)).fetchone()[0]
        return count

    def _select(self, config: RepoConfig, table: FeatureView, keys: Sequence[bytes]) -> Iterable[tuple[Any, ...]]:
        # "+ 0" takes the column's type away, and with it Feast's converter to local time.
        query = f"""
            SELECT entity_key, feature_name, value, event_ts + 0 FROM {_table(config, table)}
            WHERE entity_key IN ({",".join("?" * len(keys))})
            """  # noqa: S608 (the name is quoted, the keys are bound)
        connection: sqlite3.Connection = self._get_conn(config)
        return connection.execute(query, keys)


def _table(config: RepoConfig, table: FeatureView, suffix: str = "") -> str:
    name = compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning) + suffix
    return '"' + name.replace('"', '""') + '"'


def _key_bytes(config: RepoConfig, entity_key: EntityKey) -> bytes:
    return serialize_entity_key(entity_key, entity_key_serialization_version=config.entity_key_serialization_version)


def _epoch_seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
