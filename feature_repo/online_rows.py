"""Rows of Feast's online store, read as they are laid out, without Feast: a service need not import it.

In SQLite that is a table a view with a row a user and a column a feature (online_store.py); in Redis the published
layout (feast-dev/feast, docs/specs/online_store_format.md), one hash a user. Entity keys are of version 3
(feast/infra/key_encoding_utils.py), values are protobuf messages `feast.types.Value`. Tests compare every kind of
column with what Feast itself answers, on both.
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

# Of a user, by `Fields`: of each view its row's moment, in seconds since 1970, and values for `decode`; None where
# there is nothing.
Answer = Sequence[Any]

USER_KEY = "user_id"
MOMENT = "event_ts"
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


class Fields:
    """What an answer has, and where. Features of different views have different names."""

    def __init__(self, views: Mapping[str, Sequence[str]]) -> None:
        """`views`: the features to read, by view. Who has no row in the first view has none."""
        self.views = views
        self.columns = [(view, name) for view, names in views.items() for name in (MOMENT, *names)]
        self.moment_at = {view: at for at, (view, name) in enumerate(self.columns) if name == MOMENT}
        self.at = {name: at for at, (_, name) in enumerate(self.columns) if name != MOMENT}


class RowReader(Protocol):
    """Reads users' rows; errors are the store's own."""

    def read(self, user_ids: Sequence[str]) -> list[Answer | None]:
        """One answer a user, in order; None, or no moment, where there is no row of the user."""
        ...

    def read_at_once(self, user_id: str) -> Answer | None:
        """Of one user. Raises WouldWaitError where the answer would have to be waited for."""
        ...


def open_rows(home: FeastHome, fields: Fields) -> RowReader:
    return SqliteRows(home, fields) if home.online_url is None else RedisRows(home, fields)


class SqliteRows:
    """Reads only, so that no read makes a file. A connection a thread, and one that waits for no writer."""

    def __init__(self, home: FeastHome, fields: Fields) -> None:
        self._uri = f"file:{home.online}?mode=ro"
        # With the table's name before it, a column that is missing is an error and no text.
        columns = [f'{view}."{name}"' for view, name in fields.columns]
        first, *others = [(view, f'"{home.feast_project}_{view}" AS {view}') for view in fields.views]
        key = f"{first[0]}.entity_key"
        joins = [f"LEFT JOIN {table} ON {view}.entity_key = {key}" for view, table in others]
        # One statement, so that all views are of one moment of the file.
        self._query = f"SELECT {', '.join([*columns, key])} FROM {' '.join([first[1], *joins])} WHERE {key} IN"  # noqa: S608
        self._local = threading.local()

    def read(self, user_ids: Sequence[str]) -> list[Answer | None]:
        return self._read(self._connection("patient", wait_seconds=PATIENCE_SECONDS), user_ids)

    def read_at_once(self, user_id: str) -> Answer | None:
        try:
            return self._read(self._connection("hasty", wait_seconds=0.0), [user_id])[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte: above it are the kinds of busy
                raise
            raise WouldWaitError from error

    def _read(self, connection: sqlite3.Connection, user_ids: Sequence[str]) -> list[Answer | None]:
        keys = [entity_key(user_id) for user_id in user_ids]
        query = f"{self._query} ({','.join('?' * len(keys))})"
        found: dict[bytes, Answer] = {row[-1]: row for row in connection.execute(query, keys)}
        return [found.get(key) for key in keys]

    def _connection(self, name: str, *, wait_seconds: float) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, name, None)
        if connection is None:
            connection = sqlite3.connect(self._uri, uri=True, timeout=wait_seconds)
            setattr(self._local, name, connection)
        return connection


class RedisRows:
    """One trip for all users asked."""

    def __init__(self, home: FeastHome, fields: Fields) -> None:
        import redis

        assert home.online_url is not None
        self._client = redis.Redis.from_url(
            home.online_url.get_secret_value(),
            socket_connect_timeout=home.online_timeout_seconds,
            socket_timeout=home.online_timeout_seconds,
        )
        self._suffix = home.feast_project.encode()
        self._moments_at = list(fields.moment_at.values())
        self._fields = [
            _moment_field(view) if name == MOMENT else feature_field(view, name) for view, name in fields.columns
        ]

    def read(self, user_ids: Sequence[str]) -> list[Answer | None]:
        with self._client.pipeline(transaction=False) as trip:
            for user_id in user_ids:
                trip.hmget(entity_key(user_id) + self._suffix, self._fields)
            return [self._answer(found) for found in trip.execute()]

    def read_at_once(self, user_id: str) -> Answer | None:
        raise WouldWaitError("Redis is a server, and answers when it does.")

    def _answer(self, found: list[Any]) -> Answer:
        for at in self._moments_at:
            if found[at] is not None:
                found[at] = _seconds(found[at])
        return found


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
