"""Rows of Feast's online store, read as Feast lays them out, without Feast: a service need not import it.

The layout is the published one (feast-dev/feast, docs/specs/online_store_format.md), with entity keys of version 3
(feast/infra/key_encoding_utils.py): in SQLite a table a view with one row a feature, in Redis one hash a user. Values
are its protobuf messages `feast.types.Value`. Tests compare every kind of column with Feast's own reader, on both.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from components.core.errors import WouldWaitError
from feature_repo.layout import FeastHome

# Of a user: view -> (seconds since 1970 of the row's moment, feature -> value, for `decode`).
UserRows = dict[str, tuple[float, dict[str, bytes]]]

USER_KEY = "user_id"
PATIENCE_SECONDS = 5.0  # for a writer, which holds SQLite's lock while it commits
STRING_TYPE = 2  # feast.types.ValueType.STRING
_TYPES = descriptor_pb2.FieldDescriptorProto
# The kinds that our schemas use: name -> (number in the message, type of its element); `…_list_val` wraps a list.
_SCALARS = {
    "string_val": (2, _TYPES.TYPE_STRING),
    "int32_val": (3, _TYPES.TYPE_INT32),
    "int64_val": (4, _TYPES.TYPE_INT64),
    "double_val": (5, _TYPES.TYPE_DOUBLE),
    "float_val": (6, _TYPES.TYPE_FLOAT),
    "bool_val": (7, _TYPES.TYPE_BOOL),
    "unix_timestamp_val": (8, _TYPES.TYPE_INT64),
}
_LISTS = {
    "string_list_val": (12, _TYPES.TYPE_STRING),
    "int32_list_val": (13, _TYPES.TYPE_INT32),
    "int64_list_val": (14, _TYPES.TYPE_INT64),
    "double_list_val": (15, _TYPES.TYPE_DOUBLE),
    "float_list_val": (16, _TYPES.TYPE_FLOAT),
    "bool_list_val": (17, _TYPES.TYPE_BOOL),
    "unix_timestamp_list_val": (18, _TYPES.TYPE_INT64),
}


class RowReader(Protocol):
    """Reads users' rows; errors are the store's own."""

    def read(self, user_ids: Sequence[str]) -> list[UserRows]:
        """One answer a user, in order; without a view where it has no row of the user."""
        ...

    def read_at_once(self, user_id: str) -> UserRows:
        """Of one user. Raises WouldWaitError where the answer would have to be waited for."""
        ...


def open_rows(home: FeastHome, views: Mapping[str, Sequence[str]]) -> RowReader:
    """`views`: the features to read, by view."""
    return SqliteRows(home, views) if home.online_url is None else RedisRows(home, views)


class SqliteRows:
    """Reads only, so that no read makes a file. A connection a thread, and one that waits for no writer."""

    def __init__(self, home: FeastHome, views: Mapping[str, Sequence[str]]) -> None:
        self._uri = f"file:{home.online}?mode=ro"
        self._views = list(views)
        self._tables = [f'"{home.feast_project}_{view}"' for view in views]
        self._names = [",".join(f"'{name}'" for name in names) for names in views.values()]
        self._local = threading.local()

    def read(self, user_ids: Sequence[str]) -> list[UserRows]:
        return self._read(self._connection("patient", wait_seconds=PATIENCE_SECONDS), user_ids)

    def read_at_once(self, user_id: str) -> UserRows:
        try:
            return self._read(self._connection("hasty", wait_seconds=0.0), [user_id])[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte: above it are the kinds of busy
                raise
            raise WouldWaitError from error

    def _read(self, connection: sqlite3.Connection, user_ids: Sequence[str]) -> list[UserRows]:
        keys = [entity_key(user_id) for user_id in user_ids]
        marks = ",".join("?" * len(keys))
        # "+ 0" takes the column's type away, and with it the converter to local time. "+" before a column keeps one
        # search for a user, where SQLite would make one for each name.
        query = " UNION ALL ".join(
            f"SELECT {number}, entity_key, feature_name, value, event_ts + 0 FROM {table} "  # noqa: S608 (our own names)
            f"WHERE entity_key IN ({marks}) AND +feature_name IN ({names})"
            for number, (table, names) in enumerate(zip(self._tables, self._names, strict=True))
        )
        found: dict[bytes, UserRows] = {key: {} for key in keys}
        for number, key, name, value, moment in connection.execute(query, keys * len(self._tables)):
            _, values = found[key].setdefault(self._views[number], (moment, {}))
            values[name] = value
        return [found[key] for key in keys]

    def _connection(self, name: str, *, wait_seconds: float) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, name, None)
        if connection is None:
            connection = sqlite3.connect(self._uri, uri=True, timeout=wait_seconds)
            setattr(self._local, name, connection)
        return connection


class RedisRows:
    """One trip for all users asked."""

    def __init__(self, home: FeastHome, views: Mapping[str, Sequence[str]]) -> None:
        import redis

        assert home.online_url is not None
        self._client = redis.Redis.from_url(
            home.online_url.get_secret_value(),
            socket_connect_timeout=home.online_timeout_seconds,
            socket_timeout=home.online_timeout_seconds,
        )
        self._suffix = home.feast_project.encode()
        self._columns = [(view, name) for view, names in views.items() for name in ("", *names)]
        self._fields = [_moment_field(view) if not name else feature_field(view, name) for view, name in self._columns]

    def read(self, user_ids: Sequence[str]) -> list[UserRows]:
        with self._client.pipeline(transaction=False) as trip:
            for user_id in user_ids:
                trip.hmget(entity_key(user_id) + self._suffix, self._fields)
            return [self._rows(found) for found in trip.execute()]

    def read_at_once(self, user_id: str) -> UserRows:
        raise WouldWaitError("Redis is a server, and answers when it does.")

    def _rows(self, found: Sequence[bytes | None]) -> UserRows:
        rows: UserRows = {}
        for (view, name), value in zip(self._columns, found, strict=True):
            if not name:
                if value is not None:
                    rows[view] = (_seconds(value), {})
            elif view in rows and value is not None:
                rows[view][1][name] = value
        return rows


def entity_key(user_id: str) -> bytes:
    """Version 3 of Feast's key of one user."""
    name, value = USER_KEY.encode(), user_id.encode()
    return b"".join(
        [
            struct.pack("<III", 1, STRING_TYPE, len(name)),
            name,
            struct.pack("<II", STRING_TYPE, len(value)),
            value,
        ]
    )


def feature_field(view: str, name: str) -> bytes:
    """Where a user's hash in Redis has a feature: Murmur3 of its name."""
    import mmh3

    return struct.pack("<I", mmh3.hash(f"{view}:{name}", signed=False))


def decode(value: bytes) -> Any:
    """A serialized `feast.types.Value` -> number, text, list, or None where it holds nothing; moments are in UTC."""
    message = _VALUE()
    message.ParseFromString(value)
    kind = message.WhichOneof("val")
    if kind is None:
        return None
    held = getattr(message, kind)
    if kind in _SCALARS:
        return datetime.fromtimestamp(held, UTC) if kind == "unix_timestamp_val" else held
    if kind == "unix_timestamp_list_val":
        return [datetime.fromtimestamp(seconds, UTC) for seconds in held.val]
    return list(held.val)


def _moment_field(view: str) -> bytes:
    return f"_ts:{view}".encode()


def _seconds(stamp: bytes) -> float:
    from google.protobuf.timestamp_pb2 import Timestamp

    message = Timestamp()
    message.ParseFromString(stamp)
    seconds: float = message.seconds + message.nanos / 1e9
    return seconds


def _value_type() -> Any:
    """The message type, in a pool of its own: Feast registers the same names where both are imported."""
    file = descriptor_pb2.FileDescriptorProto(name="value.proto", package="feast.types", syntax="proto3")
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="val")
    for name, (number, kind) in _SCALARS.items():
        value.field.add(name=name, number=number, type=kind, label=_TYPES.LABEL_OPTIONAL, oneof_index=0)
    for name, (number, kind) in _LISTS.items():
        wrapper = file.message_type.add(name=f"{name}_wrapper")
        wrapper.field.add(name="val", number=1, type=kind, label=_TYPES.LABEL_REPEATED)
        value.field.add(
            name=name,
            number=number,
            type=_TYPES.TYPE_MESSAGE,
            type_name=f".feast.types.{wrapper.name}",
            label=_TYPES.LABEL_OPTIONAL,
            oneof_index=0,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("feast.types.Value"))


_VALUE = _value_type()
