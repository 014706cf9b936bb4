"""What Feast knows: entities, sources, views and services, derived from the schemas in components/core/schemas.py.

Two services, since a join needs every key of its service: users are joined for training and read online; items are
joined for training alone, for the service holds the catalogue in its own memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, FeastType, Float32, Float64, Int64, String, UnixTimestamp

from components.core.schemas import ITEM_STATISTICS, TIMESTAMP, USER_HISTORY, USER_STATISTICS
from feature_repo.layout import ITEM_SERVICE, USER_SERVICE, FeastHome

TIMES = ("event_timestamp", "created_timestamp")
# View -> its entity and its schema.
VIEWS: dict[str, tuple[str, pa.Schema]] = {
    "user_history": ("user", USER_HISTORY),
    "user_statistics": ("user", USER_STATISTICS),
    "item_statistics": ("item", ITEM_STATISTICS),
}


@dataclass(frozen=True, kw_only=True)
class Definitions:
    entities: Sequence[Entity]
    views: Sequence[FeatureView]
    services: Sequence[FeatureService]

    @property
    def objects(self) -> list[Any]:
        """All of them, as `FeatureStore.apply` takes them."""
        return [*self.entities, *self.views, *self.services]


def definitions(home: FeastHome) -> Definitions:
    """Everything to register. The sources' paths are absolute: Feast's DuckDB store ignores the repository's folder."""
    entities = {
        "user": Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="A known user."),
        "item": Entity(
            name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="A catalogue item."
        ),
    }
    views = {
        name: _view(name, entities[entity], schema, home.offline(name)) for name, (entity, schema) in VIEWS.items()
    }
    services = [
        FeatureService(
            name=USER_SERVICE,
            features=[views["user_history"], views["user_statistics"]],
            description="What training joins and the service reads of a user.",
        ),
        FeatureService(
            name=ITEM_SERVICE,
            features=[views["item_statistics"]],
            description="What training joins of an item.",
        ),
    ]
    return Definitions(entities=list(entities.values()), views=list(views.values()), services=services)


def _view(name: str, entity: Entity, schema: pa.Schema, path: Path) -> FeatureView:
    fields = [Field(name=field.name, dtype=_feast_type(field.type)) for field in schema if field.name not in TIMES]
    return FeatureView(
        name=name,
        entities=[entity],
        schema=fields,
        source=FileSource(
            name=f"{name}_source",
            path=str(path),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        ),
        # No time to live: the reader gives the age of what it read, and the caller judges it.
        ttl=timedelta(0),
        online=entity.name == "user",
    )


def _feast_type(arrow: pa.DataType) -> FeastType:
    if pa.types.is_list(arrow):
        return Array(_feast_type(arrow.value_type))
    return {
        pa.string(): String,
        pa.float32(): Float32,
        pa.float64(): Float64,
        pa.int64(): Int64,
        TIMESTAMP: UnixTimestamp,
    }[arrow]
