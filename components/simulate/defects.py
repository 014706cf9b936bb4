"""Damage done on purpose, and the note of it. Defects have their own randomness: they change nothing that people do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.schemas import TIMESTAMP
from components.simulate.behaviour import VIEW, Batch
from components.simulate.event_rows import midnight_us
from components.simulate.settings import ROW_DEFECTS, WorldSettings
from components.simulate.streams import Stream, generator

DAY_US = 86_400_000_000
PRICE_OUTLIER_FACTOR = 1_000_000
QUANTITY_OUTLIERS = (5_000, 500_000)
NEEDS_QUANTITY = frozenset({"negative_quantity", "outlier_quantity"})
# Names that other shops give the columns.
OTHER_NAMES = {
    "user_id": "customer_id",
    "item_id": "product_id",
    "event_type": "action",
    "timestamp": "event_time",
    "session_id": "visit_id",
    "quantity": "qty",
    "price": "unit_price",
}

PLANTED = pa.schema(
    [
        pa.field("file_day", pa.date32(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A batch after planting."""

    table: pa.Table
    planted: pa.Table
    """Schema PLANTED."""
    late: pa.Table
    """Clean rows that belong to a later file."""
    clean_rows: int
    """In `table` and `late`."""


@dataclass(frozen=True, kw_only=True)
class DayDefects:
    """What happens to a whole day's file."""

    renamed: dict[str, str]
    arrives: int | None
    """Day number of the file that gets the late rows; None: nothing is late."""


def day_defects(settings: WorldSettings, day: int) -> DayDefects:
    rng = generator(settings, Stream.DEFECTS, day)
    column = str(rng.choice(sorted(OTHER_NAMES)))
    is_renamed = rng.random() < settings.defects.renamed_column
    is_late = rng.random() < settings.defects.late_day
    arrives = min(day + settings.defects.late_by_days, settings.days - 1)
    return DayDefects(
        renamed={column: OTHER_NAMES[column]} if is_renamed else {},
        arrives=arrives if is_late and arrives > day else None,
    )


def plant(batch: Batch, table: pa.Table, settings: WorldSettings, *, is_late: bool) -> Damaged:
    """Damage rows of the batch's table at the world's rates; each row gets one defect at most."""
    rng = generator(settings, Stream.DEFECTS, batch.day, batch.first_session)
    table = _plain_text(table)
    rates = settings.defects.row_rates()
    kind = np.searchsorted(np.cumsum(list(rates.values())), rng.random(table.num_rows), side="right")
    masks = {name: kind == index for index, name in enumerate(ROW_DEFECTS)}
    for name in NEEDS_QUANTITY:
        # The rate is of all rows that have a quantity.
        masks[name] &= batch.event_type != VIEW
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    for name, mask in masks.items():
        if mask.any():
            _damage(name, mask, columns, settings, rng)
    damaged = pa.table(columns)

    is_touched = np.logical_or.reduce(list(masks.values()))
    late_share = settings.defects.late_row_share if is_late else 0.0
    goes_late = ~is_touched & (rng.random(table.num_rows) < late_share)
    stays = damaged.filter(pa.array(~goes_late))
    doubles = damaged.filter(pa.array(masks["duplicate"]))
    file_day = settings.day(batch.day)
    planted = [_note(damaged, mask, name, file_day) for name, mask in masks.items() if mask.any()]
    return Damaged(
        table=pa.concat_tables([stays, doubles]),
        planted=pa.concat_tables(planted) if planted else PLANTED.empty_table(),
        late=damaged.filter(pa.array(goes_late)),
        clean_rows=int((~is_touched | masks["duplicate"]).sum()),
    )


def _damage(
    name: str, mask: np.ndarray, columns: dict[str, pa.Array], settings: WorldSettings, rng: np.random.Generator
) -> None:
    count = int(mask.sum())

    def put(column: str, values: pa.Array) -> None:
        columns[column] = pc.replace_with_mask(columns[column], pa.array(mask), values)

    def nulls(column: str) -> pa.Array:
        return pa.nulls(count, columns[column].type)

    end = midnight_us(settings.day(settings.days))
    begin = midnight_us(settings.start)
    match name:
        case "duplicate":
            pass
        case "null_item":
            put("item_id", nulls("item_id"))
        case "null_event_type":
            put("event_type", nulls("event_type"))
        case "null_timestamp":
            put("timestamp", nulls("timestamp"))
        case "null_identity":
            put("user_id", nulls("user_id"))
            put("session_id", nulls("session_id"))
        case "future":
            put("timestamp", pa.array(end + rng.integers(DAY_US, 400 * DAY_US, count)).cast(TIMESTAMP))
        case "stale":
            put("timestamp", pa.array(begin - rng.integers(3 * 365 * DAY_US, 20 * 365 * DAY_US, count)).cast(TIMESTAMP))
        case "unknown_item":
            put("item_id", pa.array([f"x{number:07d}" for number in rng.integers(10**7, size=count)]))
        case "unknown_event_type":
            put("event_type", pa.array(rng.choice(["veiw", "buy", "PURCHASE", "???"], size=count).tolist()))
        case "negative_price":
            put("price", pc.negate(columns["price"].filter(pa.array(mask))))
        case "negative_quantity":
            put("quantity", pa.array(-rng.integers(0, 4, count).astype(float)))
        case "outlier_price":
            put("price", pc.multiply(columns["price"].filter(pa.array(mask)), float(PRICE_OUTLIER_FACTOR)))
        case "outlier_quantity":
            put("quantity", pa.array(rng.integers(*QUANTITY_OUTLIERS, count).astype(float)))
        case _:
            raise AssertionError(name)


def _note(table: pa.Table, mask: np.ndarray, kind: str, file_day: date) -> pa.Table:
    event_ids = table.column("event_id").filter(pa.array(mask))
    days = pa.array([file_day] * len(event_ids), pa.date32())
    return pa.table([days, event_ids.combine_chunks(), pa.array([kind] * len(event_ids))], schema=PLANTED)


def _plain_text(table: pa.Table) -> pa.Table:
    """The same table with plain text columns, all of them nullable."""
    fields = [
        pa.field(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
