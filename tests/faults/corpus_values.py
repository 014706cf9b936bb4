"""Single values that no shop means: numbers that are none, times that never were, ids that attack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from broken_shop import (
    FORMS,
    QUARANTINED,
    READ,
    BrokenInput,
    broken_log,
    encode,
    good_rows,
    parquet_bytes,
    with_bad_row,
)

NUMBER = {"quantity": pa.float64(), "price": pa.float64()}


def _numbers() -> Iterator[BrokenInput]:
    spoilt: tuple[tuple[str, dict[str, Any], str, str], ...] = (
        ("a price of NaN", {"price": float("nan")}, READ, "13 kept"),
        ("an infinite quantity", {"quantity": float("inf")}, QUARANTINED, "quantity is infinite"),
        ("a price of minus infinity", {"price": float("-inf")}, QUARANTINED, "price is infinite"),
        ("a price of 1e308", {"price": 1e308}, QUARANTINED, "price is over 100,000"),
        ("a price below zero", {"price": -1.0}, QUARANTINED, "price is 0 or less"),
        ("a quantity of zero", {"quantity": 0}, QUARANTINED, "quantity is 0 or less"),
    )
    for form in FORMS:
        for name, changes, ends, sees in spoilt:
            data = encode(with_bad_row(**changes), form, types=NUMBER)
            bad = int(ends == QUARANTINED)
            yield broken_log(name, data, form=form, ends=ends, sees=sees, kept=13 - bad, put_aside=bad)
    yield broken_log(
        "a number that overflows",
        encode(with_bad_row(price="HUGE"), "jsonl").replace(b'"HUGE"', b"1e999"),
        form="jsonl",
        ends=QUARANTINED,
        sees="price is",
        put_aside=1,
    )
    for value in ("3,5", "1.234,56", "$3", "two"):
        yield broken_log(
            f"a price of {value}",
            encode(with_bad_row(price=value), "csv"),
            ends=QUARANTINED,
            sees="price is not a number",
            put_aside=1,
        )


def _times() -> Iterator[BrokenInput]:
    impossible = {
        "0000-01-01": "lies outside the years",
        "2024-02-30": "is not a time",
        "2024-05-01T25:00:00Z": "is not a time",
        "2024-05-01T10:00:00+99:00": "is not a time",
        "yesterday": "is not a time",
        "infinity": "is not a time",
        "0001-01-01": "lies outside the years",
        "9999-12-31T23:59:59Z": "lies outside the years",
        "10000-01-01": "lies outside the years",
        "294247-01-10": "lies outside the years",
        "5000-01-01 (BC)": "lies outside the years",
        "-1": "is not a time",
        "0": "is not a time",
        "99999999999999999999": "is not a time",
    }
    for value, sees in impossible.items():
        yield broken_log(
            f"a time of {value}",
            encode(with_bad_row(timestamp=value), "csv"),
            ends=QUARANTINED,
            sees=f"timestamp {sees}",
            put_aside=1,
        )
    for value in ("0001-01-01", "9999-12-31T23:59:59Z"):
        yield broken_log(
            f"a time of {value}",
            encode(with_bad_row(timestamp=value), "jsonl"),
            form="jsonl",
            ends=QUARANTINED,
            sees="timestamp lies outside the years",
            put_aside=1,
        )
    for name, micros in (("0001-01-01", -62_135_596_800_000_000), ("9999-12-31", 253_402_214_400_000_000)):
        rows = [1_714_557_600_000_000 + n * 1_000_000 for n in range(12)]
        table = pa.Table.from_pylist(with_bad_row())
        times = pa.array([*rows, micros]).cast(pa.timestamp("us", "UTC"))
        table = table.set_column(table.column_names.index("timestamp"), "timestamp", times)
        yield broken_log(
            f"a time of {name}",
            parquet_bytes(table),
            form="parquet",
            ends=QUARANTINED,
            sees="timestamp lies outside the years",
            put_aside=1,
        )
    for form in FORMS:
        yield broken_log(
            "a time of years ago",
            encode(with_bad_row(timestamp="2011-01-01"), form),
            form=form,
            sees="At most 2% of the rows lie beyond a gap",
        )
        yield broken_log(
            "a time in the future, without --as-of",
            encode(with_bad_row(timestamp="2031-01-01T00:00:00Z"), form),
            form=form,
            sees="The newest event is before as_of, and at most 3 days old",
        )


STRANGE_IDS = {
    "quotes": """it"em'""",
    "a newline": "two\nlines",
    "SQL": "'; DROP TABLE typed; --",
    "a right-to-left mark": "abc\u202edef\u200f",
    "HTML": "<script>alert(1)</script>",
    "a path": "../../etc/passwd",
    "an emoji": "🧺",
    "a zero-width space": "a\u200bb",
    "a backslash": "a\\b",
    "a percent sign and braces": "%s{0}${HOME}",
}


def _ids() -> Iterator[BrokenInput]:
    for name, value in STRANGE_IDS.items():
        data = encode(with_bad_row(item_id=value, user_id=value), "csv")
        yield broken_log(f"ids with {name}", data, ends=READ, sees="13 rows = 13 kept", kept=13, ids=(value,))
    for form in FORMS:
        strange = [{**good_rows()[0], "item_id": value, "user_id": value} for value in STRANGE_IDS.values()]
        yield broken_log(
            "ids with all of these",
            encode([*good_rows(), *strange], form),
            form=form,
            ends=READ,
            sees=f"{12 + len(strange)} rows = {12 + len(strange)} kept",
            kept=12 + len(strange),
            ids=tuple(STRANGE_IDS.values()),
        )
        yield broken_log(
            "an id of blanks",
            encode(with_bad_row(item_id="   "), form),
            form=form,
            ends=QUARANTINED,
            sees="no item_id",
            put_aside=1,
        )
        yield broken_log(
            "an id of 2,000 letters",
            encode(with_bad_row(item_id="x" * 2_000), form),
            form=form,
            ends=QUARANTINED,
            sees="item_id is longer than 1,000 characters",
            put_aside=1,
        )
        yield broken_log(
            "an id of a million letters",
            encode(with_bad_row(user_id="x" * 1_000_000), form),
            form=form,
            ends=QUARANTINED,
            sees="user_id is longer than 1,000 characters",
            put_aside=1,
        )
        yield broken_log(
            "an unknown kind of event",
            encode(with_bad_row(event_type="veiw"), form),
            form=form,
            ends=QUARANTINED,
            sees="event_type is not a known kind",
            put_aside=1,
        )
        yield broken_log(
            "a row twice", encode([*good_rows(), good_rows()[0]], form), form=form, ends=READ, sees="1 duplicates"
        )
    for form in ("csv", "jsonl"):
        yield broken_log(
            "a line of 3 million letters",
            encode(with_bad_row(user_id="x" * 3_000_000), form),
            form=form,
            ends=QUARANTINED,
            sees="line cannot be read: line size over maximum",
            put_aside=1,
        )
        yield broken_log(
            "an id with a NUL byte",
            encode(with_bad_row(item_id="NUL"), form).replace(b"NUL", b"a\x00b" if form == "csv" else b"a\\u0000b"),
            form=form,
            ends=QUARANTINED,
            sees="NUL",
            put_aside=1,
        )


def _json() -> Iterator[BrokenInput]:
    good = encode(good_rows(), "jsonl")
    lines = {
        "a list": b"[1, 2]",
        "a bare number": b"42",
        "a broken object": b'{"user_id": ',
    }
    for name, line in lines.items():
        yield broken_log(
            f"a line that is {name}",
            good + line + b"\n",
            form="jsonl",
            ends=QUARANTINED,
            sees="line cannot be read: no JSON object",
            put_aside=1,
        )
    yield broken_log(
        "an item_id of 100,000 lists, one within another",
        good + b'{"item_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        form="jsonl",
        ends=QUARANTINED,
        sees="item_id is a list or an object",
        put_aside=1,
    )
    for name, value in {"an object": {"id": 1}, "a list": ["a", "b"]}.items():
        yield broken_log(
            f"{name} where an id should be",
            encode(with_bad_row(item_id=value), "jsonl"),
            form="jsonl",
            ends=QUARANTINED,
            sees="item_id is a list or an object",
            put_aside=1,
        )
    whole = json.dumps(good_rows(), indent=1)
    yield broken_log("one list of all rows, over many lines", whole, form="json", sees="one object a line")
    yield broken_log(
        "one list of all rows, on one line", json.dumps(good_rows()), form="json", sees="Write one object a line"
    )
    yield broken_log(
        "the rows under a key, on one line",
        json.dumps({"events": good_rows()}),
        form="json",
        sees="is one JSON object with the rows under 'events'. Write one object a line",
    )


def _whole_logs() -> Iterator[BrokenInput]:
    for form in FORMS:
        bad = [{**row, "quantity": 0} for row in good_rows()[:6]]
        yield broken_log(
            "half of a day's rows are bad",
            encode([*good_rows()[6:], *bad], form),
            form=form,
            sees="At most 25% of a day's rows are bad",
        )


VALUES = (*_numbers(), *_times(), *_ids(), *_json(), *_whole_logs())
