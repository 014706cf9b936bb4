"""Filling the feature store and joining from it: what the features step does to Feast."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import Any

import filelock
import pyarrow as pa
from feast import FeatureStore, FeatureView, RepoConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from components.core.artifact import write_parquet
from components.core.errors import BusyError
from feature_repo.definitions import VIEWS, Definitions, definitions
from feature_repo.layout import ITEM_SERVICE, ONLINE_VIEWS, USER_SERVICE, FeastHome
from feature_repo.online_store import NewestSqliteOnlineStore

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_SECONDS = 600
SERVICE_OF = {"user": USER_SERVICE, "item": ITEM_SERVICE}


def repo_config(home: FeastHome) -> RepoConfig:
    """Feast's configuration of a shop; feature_repo/feature_store.yaml says the same of the demo."""
    online: dict[str, Any] = {"type": "feature_repo.online_store.NewestSqliteOnlineStore", "path": str(home.online)}
    if home.online_url is not None:
        online = {
            "type": "feature_repo.redis_store.NewestRedisOnlineStore",
            "connection_string": home.online_url.get_secret_value(),
            "timeout_seconds": home.online_timeout_seconds,
        }
    registry: str | dict[str, Any] = str(home.registry)
    if home.registry_url is not None:
        # Feast would put psycopg there as well, with a warning each time.
        url = home.registry_url.get_secret_value().replace("postgresql://", "postgresql+psycopg://", 1)
        registry = {"registry_type": "sql", "path": url}
    return RepoConfig(
        project=home.feast_project,
        provider="local",
        registry=registry,
        # Never 'file': that one silently drops rows of a join.
        offline_store={"type": "duckdb"},
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=home.folder,
    )


class FeatureRepo:
    """One shop's feature store, opened for writing. Use it inside `writing`."""

    def __init__(self, home: FeastHome) -> None:
        self.home = home
        self.home.folder.mkdir(parents=True, exist_ok=True)
        self.feast = FeatureStore(config=repo_config(home))
        self.definitions: Definitions = definitions(home)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep a second writer out: a run joins from the very files that it wrote."""
        try:
            with filelock.FileLock(self.home.lock, timeout=LOCK_TIMEOUT_SECONDS):
                yield
        except filelock.Timeout as error:
            raise BusyError("Another process is writing the feature store. Wait for it, then try again.") from error

    def write_offline(self, tables: Mapping[str, pa.Table]) -> None:
        """Replace the views' offline files, each whole. `tables` are of the views' schemas, by view."""
        for view, table in tables.items():
            path = self.home.offline(view)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            write_parquet(table, part)
            part.replace(path)

    def apply(self) -> None:
        """Register the definitions; the same ones again change nothing."""
        with _quiet():
            self.feast.apply(self.definitions.objects)

    def join(self, entity: str, frame: pa.Table) -> dict[str, pa.Table]:
        """Feast's point-in-time join of an entity's views, in the views' schemas and in `frame`'s order of rows.

        `frame` has the entity's key and `event_timestamp`; a row gets what was known at that moment, and nulls where
        nothing was. Rows that somebody created after the moment they speak of do not count.
        """
        service = self.feast.get_feature_service(SERVICE_OF[entity])
        with _quiet():
            joined = self.feast.get_historical_features(
                entity_df=frame.to_pandas(), features=service, filter_by_created_timestamp=True
            ).to_arrow()
        # The join keeps no order.
        key = f"{entity}_id"
        joined = joined.sort_by([("event_timestamp", "ascending"), (key, "ascending")])
        joined = joined.append_column("created_timestamp", joined["event_timestamp"])
        return {
            name: joined.select(schema.names).cast(schema) for name, (owner, schema) in VIEWS.items() if owner == entity
        }

    def materialize(self, moment: datetime, user_ids: Iterable[str]) -> int:
        """Bring the snapshot of `moment` online, and forget who is not in it. `user_ids` are all of its users.

        Rows newer than `moment` stay as they are. Returns how many users' rows have the snapshot's values.
        """
        keys = [EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user_id)]) for user_id in user_ids]
        views = [view for view in self.definitions.views if view.online]
        bring = self._into_sqlite if self.home.online_url is None else self._into_redis
        return bring(moment, keys, views)

    def _into_sqlite(self, moment: datetime, keys: Sequence[EntityKey], views: Sequence[FeatureView]) -> int:
        self._materialize(moment)
        online = NewestSqliteOnlineStore()
        for view in views:
            online.keep_only(self.feast.config, view, keys, known_at=moment)
        online.settle(self.feast.config)
        return min(online.count_at(self.feast.config, view, moment) for view in views)

    def _into_redis(self, moment: datetime, keys: Sequence[EntityKey], views: Sequence[FeatureView]) -> int:
        from feature_repo.redis_store import NewestRedisOnlineStore

        online, config, mark = NewestRedisOnlineStore(), self.feast.config, self.home.moment_key
        before = online.marked(config, mark)
        online.mark(config, mark, None)  # killed from here on, the store does not stand
        self._materialize(moment)
        for view in views:
            online.keep_only(config, view, keys, known_at=moment)
        count = min(online.count_at(config, view, moment, keys) for view in views)
        # No row is older than this snapshot; where none is of it, all are newer, as they were.
        online.mark(config, mark, moment if count else before)
        return count

    def _materialize(self, moment: datetime) -> None:
        with _quiet():
            self.feast.materialize(moment, moment, feature_views=list(ONLINE_VIEWS))


@contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints where a step logs, and its libraries warn of each other."""
    printed = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(printed):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
    if text := printed.getvalue().strip():
        logger.debug("feast: %s", text)
