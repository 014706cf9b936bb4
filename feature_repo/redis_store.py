"""Feast's Redis online store, mended where it would serve wrong features, as online_store.py mends the SQLite one.

1. Feast skips a row of the very moment that is there; here it replaces it, so a run that is repeated corrects itself.
2. Feast never forgets a row; here who has left the log is forgotten.
3. Feast takes a connection string of its own; here it is Redis' URL, whose reader gives up after a time.

A user is one hash, as Feast lays it out: a field a feature, and one with the moment of each view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from redis import Redis

T = TypeVar("T")
OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

KEYS_A_TRIP = 1000
CONNECT_TIMEOUT_SECONDS = 5.0


class NewestRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    # Feast's own class allows its own name only.
    type: str = "feature_repo.redis_store.NewestRedisOnlineStore"  # type: ignore[assignment]
    timeout_seconds: float = 1.0


class NewestRedisOnlineStore(RedisOnlineStore):
    """The same keys and fields as Feast's own; see the module for what differs. `connection_string` is a URL."""

    def _get_client(self, online_store_config: Any) -> Redis:
        if not isinstance(self._client, Redis):
            self._client = Redis.from_url(
                online_store_config.connection_string,
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                socket_timeout=online_store_config.timeout_seconds,
            )
        return self._client

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[OnlineRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        client = self._get_client(config.online_store)
        for rows in _batches(data):
            keys = [_key(config, entity_key) for entity_key, *_ in rows]
            before = self._moments(client, table, keys)
            with client.pipeline(transaction=False) as trip:
                for key, known, (_, values, event_time, _) in zip(keys, before, rows, strict=True):
                    moment = event_time if event_time.tzinfo else event_time.replace(tzinfo=UTC)
                    if known is not None and known > moment:
                        continue
                    fields: dict[Any, Any] = {
                        _mmh3(f"{table.name}:{name}"): value.SerializeToString() for name, value in values.items()
                    }
                    trip.hset(key, mapping={**fields, _moment_field(table): _pack(moment)})
                trip.execute()
        if progress:
            progress(len(data))

    def keep_only(
        self, config: RepoConfig, table: FeatureView, entity_keys: Iterable[EntityKey], *, known_at: datetime
    ) -> int:
        """Forget the keys that are not among these, unless they are newer than `known_at`. Returns how many went."""
        client = self._get_client(config.online_store)
        kept = {_key(config, entity_key) for entity_key in entity_keys}
        prefix, suffix = serialize_entity_key_prefix(table.join_keys), config.project.encode()
        gone = 0
        for keys in _batches(client.scan_iter(_literal(prefix) + b"*" + _literal(suffix), count=KEYS_A_TRIP)):
            others = [key for key in keys if key not in kept]
            old = [
                key
                for key, moment in zip(others, self._moments(client, table, others), strict=True)
                if moment is not None and moment <= known_at
            ]
            fields = [*(_mmh3(f"{table.name}:{field.name}") for field in table.features), _moment_field(table)]
            with client.pipeline(transaction=False) as trip:
                for key in old:
                    trip.hdel(key, *fields)  # a hash without fields is gone
                trip.execute()
            gone += len(old)
        return gone

    def count_at(
        self, config: RepoConfig, table: FeatureView, moment: datetime, entity_keys: Sequence[EntityKey]
    ) -> int:
        """How many of these keys hold the values of exactly this moment."""
        client = self._get_client(config.online_store)
        keys = (_key(config, entity_key) for entity_key in entity_keys)
        return sum(self._moments(client, table, batch).count(moment) for batch in _batches(keys))

    def mark(self, config: RepoConfig, key: str, moment: datetime | None) -> None:
        """Note the moment that every row has reached; None: a write is under way."""
        client = self._get_client(config.online_store)
        if moment is None:
            client.delete(key)
        else:
            client.set(key, int(moment.timestamp()))

    def marked(self, config: RepoConfig, key: str) -> datetime | None:
        """What `mark` noted."""
        found: Any = self._get_client(config.online_store).get(key)
        return None if found is None else datetime.fromtimestamp(int(found), UTC)

    def _moments(self, client: Redis, table: FeatureView, keys: Sequence[bytes]) -> list[datetime | None]:
        with client.pipeline(transaction=False) as trip:
            for key in keys:
                trip.hget(key, _moment_field(table))
            return [None if packed is None else _unpack(packed) for packed in trip.execute()]


def _key(config: RepoConfig, entity_key: EntityKey) -> bytes:
    return _redis_key(
        config.project, entity_key, entity_key_serialization_version=config.entity_key_serialization_version
    )


def _moment_field(table: FeatureView) -> str:
    return f"_ts:{table.name}"


def _pack(moment: datetime) -> bytes:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return bytes(stamp.SerializeToString())


def _unpack(packed: bytes) -> datetime:
    stamp = Timestamp()
    stamp.ParseFromString(packed)
    moment: datetime = stamp.ToDatetime(tzinfo=UTC)
    return moment


def _literal(text: bytes) -> bytes:
    """The text as a pattern of SCAN that matches nothing else."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]^\\" else bytes([byte]) for byte in text)


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(values)
    while batch := list(islice(rest, KEYS_A_TRIP)):
        yield batch
