"""Batches as tables of the data contract: ids as fixed-width text, built without a Python object a row."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import numpy as np
import pyarrow as pa

from components.core.schemas import EVENTS, TIMESTAMP
from components.simulate.behaviour import EVENT_TYPES, SESSIONS_PER_BATCH, Batch
from components.simulate.catalog import Catalog
from components.simulate.population import Population
from components.simulate.settings import WorldSettings

_FOUR_DIGITS = np.frombuffer("".join(f"{number:04d}" for number in range(10_000)).encode(), dtype=np.uint32)
ID_BYTES = 16


def numbered_ids(prefix: str, first: int, count: int) -> pa.StringArray:
    """'e240131-' + eight digits from `first` on: (count,) text of 16 bytes each, ascending."""
    assert len(prefix) == 8
    assert first + count <= 10**8
    number = np.arange(first, first + count, dtype=np.int64)
    words = np.empty((count, 4), dtype=np.uint32)
    words[:, :2] = np.frombuffer(prefix.encode(), dtype=np.uint32)
    words[:, 2] = _FOUR_DIGITS[number // 10_000]
    words[:, 3] = _FOUR_DIGITS[number % 10_000]
    offsets = np.arange(0, (count + 1) * ID_BYTES, ID_BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(words))


def day_prefix(letter: str, day: date) -> str:
    return f"{letter}{day:%y%m%d}-"


def midnight_us(day: date) -> int:
    """Microseconds since 1970."""
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000


def event_table(batch: Batch, settings: WorldSettings, catalog: Catalog, population: Population) -> pa.Table:
    """The batch in EVENTS' columns; low-cardinality text is dictionary-encoded, which parquet stores as plain text."""
    day = settings.day(batch.day)
    session_ids = numbered_ids(day_prefix("s", day), batch.first_session, len(batch.session_user))
    is_anonymous = batch.is_anonymous[batch.session]
    # A dictionary travels whole with every batch: worth it for batches that use much of it. One answer for a whole day.
    batch_sessions = min(batch.day_sessions, SESSIONS_PER_BATCH)
    columns = {
        "event_id": numbered_ids(day_prefix("e", day), batch.first_event, batch.num_events),
        "user_id": _text(
            batch.session_user[batch.session], population.user_ids, mask=is_anonymous, batch_sessions=batch_sessions
        ),
        "item_id": _text(batch.item, catalog.item_ids, batch_sessions=batch_sessions),
        "event_type": pa.DictionaryArray.from_arrays(batch.event_type, pa.array(EVENT_TYPES)),
        "timestamp": pa.array(batch.time + midnight_us(day)).cast(TIMESTAMP),
        "session_id": pa.DictionaryArray.from_arrays(batch.session, session_ids),
        "quantity": pa.array(batch.quantity, from_pandas=True),
        "price": pa.array(batch.price),
    }
    fields = [pa.field(name, column.type, EVENTS.field(name).nullable) for name, column in columns.items()]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))


def _text(
    index: np.ndarray, values: pa.StringArray, *, batch_sessions: int, mask: np.ndarray | None = None
) -> pa.Array:
    indices = pa.array(index, mask=mask)
    if len(values) > 4 * batch_sessions:
        return values.take(indices)
    return pa.DictionaryArray.from_arrays(indices, values)
