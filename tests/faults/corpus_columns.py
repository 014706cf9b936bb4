"""Columns that are missing, misspelt, doubled, of another type, or not columns at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from broken_shop import (
    FORMS,
    QUARANTINED,
    READ,
    REFUSED,
    BrokenInput,
    Row,
    broken_log,
    encode,
    good_rows,
    parquet_bytes,
)

CSV = encode(good_rows(), "csv")


def _renamed(old: str, new: str) -> list[Row]:
    return [{new if name == old else name: value for name, value in row.items()} for row in good_rows()]


def _without(*names: str) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in names} for row in good_rows()]


def _names() -> Iterator[BrokenInput]:
    for form in FORMS:
        yield broken_log(
            "no column item_id", encode(_without("item_id"), form), form=form, sees="has no column 'item_id'"
        )
        yield broken_log(
            "neither user_id nor session_id",
            encode(_without("user_id", "session_id"), form),
            form=form,
            sees="has neither a column 'user_id' nor 'session_id'",
        )
        yield broken_log(
            "item_id misspelt itme_id",
            encode(_renamed("item_id", "itme_id"), form),
            form=form,
            sees="has a column 'itme_id', which the contract does not know. Did you mean 'item_id'?",
        )
        yield broken_log(
            "timestamp called event_time",
            encode(_renamed("timestamp", "event_time"), form),
            form=form,
            sees="has a column 'event_time', which the contract does not know. Did you mean 'timestamp'?",
        )
        yield broken_log(
            "item_id in capitals",
            encode(_renamed("item_id", "ITEM_ID"), form),
            form=form,
            sees="Did you mean 'item_id'?",
        )


def _parquet_with(**changed: pa.Array) -> bytes:
    table = pa.Table.from_pylist(good_rows())
    for name, column in changed.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return parquet_bytes(table)


def _doubled_parquet(name: str, other: str) -> bytes:
    table = pa.Table.from_pylist(good_rows())
    return parquet_bytes(table.append_column(other, table[name]))


DOUBLED = (
    broken_log(
        "item_id twice in the header",
        CSV.replace(b"session_id", b"item_id", 1),
        sees="events.csv has the column 'item_id' twice. Rename or drop one",
    ),
    broken_log("a column without a name", CSV.replace(b"session_id", b"", 1), sees="column 5 has no name"),
    broken_log(
        "item_id and Item_Id",
        CSV.replace(b"session_id", b"Item_Id", 1),
        sees="events.csv has the columns 'item_id' and 'Item_Id'",
    ),
    broken_log(
        "item_id twice", _doubled_parquet("item_id", "item_id"), form="parquet", sees="has the column 'item_id' twice"
    ),
    broken_log(
        "item_id and Item_Id",
        _doubled_parquet("item_id", "Item_Id"),
        form="parquet",
        sees="has the columns 'item_id' and 'Item_Id'",
    ),
    broken_log(
        "item_id and Item_Id",
        encode([{**row, "Item_Id": "x"} for row in good_rows()], "jsonl"),
        form="jsonl",
        sees="has the columns 'Item_Id' and 'item_id'",
    ),
    broken_log(
        "a key twice in an object",
        encode(good_rows(), "jsonl")
        + b'{"user_id":"u","item_id":"a","item_id":"b","event_type":"view","timestamp":"2024-05-01"}\n',
        form="jsonl",
        ends=QUARANTINED,
        sees="a key stands twice",
        put_aside=1,
    ),
)

_WHEN = [datetime(2024, 5, 1, 10, minute, tzinfo=UTC) for minute in range(12)]


def _retyped(name: str, column: str, values: Any, *, ends: str, sees: str, **more: Any) -> BrokenInput:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return broken_log(name, _parquet_with(**{column: array}), form="parquet", ends=ends, sees=sees, **more)


RETYPED = (
    _retyped("timestamp as true and false", "timestamp", [True] * 12, ends=REFUSED, sees="timestamp is not a time"),
    _retyped("timestamp as a list", "timestamp", [[1]] * 12, ends=REFUSED, sees="'timestamp' holds lists or objects"),
    _retyped("timestamp as numbers like 20240501", "timestamp", [20240501] * 12, ends=REFUSED, sees="is not a time"),
    _retyped("timestamp as times of day", "timestamp", [_WHEN[0].time()] * 12, ends=REFUSED, sees="is not a time"),
    _retyped("item_id as a list", "item_id", [["a"]] * 12, ends=REFUSED, sees="'item_id' holds lists or objects"),
    _retyped("item_id as a struct", "item_id", [{"id": 1}] * 12, ends=REFUSED, sees="'item_id' holds lists or objects"),
    _retyped("quantity as a list", "quantity", [[1.0]] * 12, ends=REFUSED, sees="'quantity' holds lists or objects"),
    _retyped("quantity as words", "quantity", ["two"] * 12, ends=REFUSED, sees="quantity is not a number"),
    _retyped("item_id all null", "item_id", pa.nulls(12), ends=REFUSED, sees="no item_id"),
    _retyped("item_id as bytes that are no text", "item_id", [b"\xff\xfe"] * 12, ends=REFUSED, sees="holds bytes"),
    _retyped("item_id as dates", "item_id", [_WHEN[0].date()] * 12, ends=READ, sees="12 rows = 12 kept"),
    _retyped("user_id as numbers with gaps", "user_id", [1.0, None] * 6, ends=READ, sees="12 rows = 12 kept"),
    _retyped("price as decimals", "price", pa.array([2] * 12).cast(pa.decimal128(30, 2)), ends=READ, sees="12 kept"),
    _retyped(
        "timestamp in nanoseconds", "timestamp", pa.array(_WHEN, pa.timestamp("ns", "UTC")), ends=READ, sees="12 kept"
    ),
    _retyped(
        "event_type as a dictionary", "event_type", pa.array(["view"] * 12).dictionary_encode(), ends=READ, sees="12"
    ),
)


def _two_types(shop: Any) -> None:
    (shop / "logs").mkdir()
    (shop / "logs" / "1.parquet").write_bytes(encode(good_rows(), "parquet"))
    (shop / "logs" / "2.parquet").write_bytes(_parquet_with(item_id=pa.array([{"id": 1}] * 12)))


def _a_file_renames(shop: Any) -> None:
    (shop / "logs").mkdir()
    (shop / "logs" / "1.csv").write_bytes(CSV)
    (shop / "logs" / "2.csv").write_bytes(CSV.replace(b"item_id", b"sku", 1))


SHAPES = (
    BrokenInput(
        name="a column of text in one file and of objects in another",
        make=_two_types,
        events="logs",
        ends=REFUSED,
        sees="'item_id' holds lists or objects",
    ),
    BrokenInput(
        name="a file that calls item_id sku",
        make=_a_file_renames,
        events="logs",
        ends=REFUSED,
        sees="2.csv has no column 'item_id', which other files of the log have",
    ),
    broken_log("no header", CSV.split(b"\n", 1)[1], sees="has no column 'item_id'"),
    broken_log("a semicolon in the header, commas below", CSV.replace(b",", b";", 6), sees="Not one of the log's"),
    broken_log(
        "a field too many in every line",
        CSV.replace(b"\n", b",x\n").replace(b",x\n", b"\n", 1),
        sees="Not one of the log's 12 rows can be used; 12 because: line cannot be read: too many columns",
    ),
    broken_log(
        "a field too many in one line",
        CSV + b"u,i,view,2024-05-01,s,1,2,3\n",
        ends=QUARANTINED,
        sees="too many columns",
        put_aside=1,
    ),
    broken_log(
        "a quote that is never closed",
        CSV + b'u,"i,view,2024-05-01,s,1,2\nu,i,view,2024-05-01,s,1,2\n',
        ends=QUARANTINED,
        sees="line cannot be read",
        put_aside=1,
    ),
    broken_log(
        "a header of 2,000 columns", b",".join(b"c%d" % n for n in range(2_000)) + b"\n1\n", sees="has no column"
    ),
)

COLUMN_CASES = (*_names(), *DOUBLED, *RETYPED, *SHAPES)
