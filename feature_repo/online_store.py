"""Feast's SQLite online store, mended where it would serve wrong features or serve them slowly.

1. Feast lets an older row overwrite a newer one; here the newer stays, so a run as of last week cannot age the service.
2. Feast stores times as if UTC were the machine's zone, so another machine reads another age; here they are UTC.
3. Readers wait for a writer; here the file is in WAL mode, and they read on.
4. Feast writes a row for each feature of a user, and a read is as many searches. Here a view's table has a row a user
   and a column a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from feast import Entity, FeatureView, RepoConfig
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
    """A table a view: entity_key, event_ts and created_ts in seconds since 1970, and a serialized Value a feature."""

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        connection = self._get_conn(config)
        for view in tables_to_delete:
            connection.execute(f"DROP TABLE IF EXISTS {_table(config, view)}")
        for view in tables_to_keep:
            table = _table(config, view)
            known = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            if "feature_name" in known:  # as Feast lays it out
                connection.execute(f"DROP TABLE {table}")
                known = []
            columns = {
                "entity_key": "BLOB PRIMARY KEY",
                "event_ts": "INTEGER NOT NULL",
                "created_ts": "INTEGER NOT NULL",
                **dict.fromkeys(_feature_names(view), "BLOB"),
            }
            if not known:
                declared = ", ".join(f"{_quoted(name)} {kind}" for name, kind in columns.items())
                connection.execute(f"CREATE TABLE {table} ({declared})")
                known = list(columns)
            for name in columns.keys() - known:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {_quoted(name)} {columns[name]}")
            # A scan of the moments would read the rows.
            connection.execute(f"CREATE INDEX IF NOT EXISTS {_table(config, view, '_event_ts')} ON {table} (event_ts)")

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[OnlineRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        names = _feature_names(table)
        rows = (
            (
                _key_bytes(config, entity_key),
                _epoch_seconds(event_time),
                _epoch_seconds(created or event_time),
                *(values[name].SerializeToString() if name in values else None for name in names),
            )
            for entity_key, values, event_time, created in data
        )
        columns = [_quoted(name) for name in names]
        kept = "".join(f", {column} = coalesce(excluded.{column}, {column})" for column in columns)
        connection = self._get_conn(config)
        connection.execute("PRAGMA journal_mode = WAL")
        with connection:
            connection.executemany(
                f"""
                INSERT INTO {_table(config, table)} ({", ".join(["entity_key", "event_ts", "created_ts", *columns])})
                VALUES (?, ?, ?{", ?" * len(columns)})
                ON CONFLICT (entity_key) DO UPDATE
                SET event_ts = excluded.event_ts, created_ts = excluded.created_ts{kept}
                WHERE (excluded.event_ts, excluded.created_ts) >= (event_ts, created_ts)
                """,  # noqa: S608 (the names are quoted, the values are bound)
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
        names = requested_features or _feature_names(table)
        keys = [_key_bytes(config, entity_key) for entity_key in entity_keys]
        # With the table's name before it, a column that is missing is an error and no text.
        query = f"""
            SELECT entity_key, event_ts{"".join(f", stored.{_quoted(name)}" for name in names)}
            FROM {_table(config, table)} AS stored WHERE entity_key IN ({",".join("?" * len(keys))})
            """  # noqa: S608 (the names are quoted, the keys are bound)
        found = {
            key: (
                datetime.fromtimestamp(seconds, UTC),
                {name: Value.FromString(value) for name, value in zip(names, values, strict=True) if value is not None},
            )
            for key, seconds, *values in self._get_conn(config).execute(query, keys)
        }
        return [found.get(key, (None, None)) for key in keys]

    def keep_only(
        self, config: RepoConfig, table: FeatureView, entity_keys: Iterable[EntityKey], *, known_at: datetime
    ) -> int:
        """Forget the keys that are not among these, unless they are newer than `known_at`. Returns how many went.

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
        query = f"SELECT count(*) FROM {_table(config, table)} WHERE event_ts = ?"  # noqa: S608
        count: int = self._get_conn(config).execute(query, (_epoch_seconds(moment),)).fetchone()[0]
        return count


def _table(config: RepoConfig, table: FeatureView, suffix: str = "") -> str:
    name = compute_table_id(config.project, table, config.registry.enable_online_feature_view_versioning) + suffix
    return _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _feature_names(table: FeatureView) -> list[str]:
    return [feature.name for feature in table.features]


def _key_bytes(config: RepoConfig, entity_key: EntityKey) -> bytes:
    return serialize_entity_key(entity_key, entity_key_serialization_version=config.entity_key_serialization_version)


def _epoch_seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
