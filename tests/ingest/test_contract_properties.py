"""Whatever the rows: none is lost or made up, and rows in the contract come out as they went in, in every format."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop_log import Shop, events_of
from written_log import COLUMNS, write_log

from components.core.errors import ContractError
from components.core.schemas import EVENTS

FEW = settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
FORMS = st.sampled_from(["csv", "jsonl", "parquet"])
START = datetime(2024, 5, 1, tzinfo=UTC)

# Any text that is an id: not blank at its ends (blanks there are taken off), no NUL, no half of a surrogate pair.
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text and text.isprintable()
)
moments = st.timedeltas(timedelta(), timedelta(days=3)).map(lambda after: START + after)
numbers = st.none() | st.floats(min_value=-1e6, max_value=1e9, allow_nan=False).map(lambda number: number + 0.0)
good_rows = st.fixed_dictionaries(
    {
        "user_id": ids,
        "item_id": ids,
        "event_type": ids,
        "timestamp": moments,
        "session_id": ids,
        "quantity": numbers,
        "price": numbers,
    }
)
# What logs are full of, beside good values.
anything = st.sampled_from(["", " ", "x", "1", "nan", "inf", "-5", "2024-05-01", "9999-12-31", "1714557600", "{}", '"'])
any_rows = st.fixed_dictionaries(dict.fromkeys(COLUMNS, anything))


@FEW
@given(rows=st.lists(good_rows, min_size=1, max_size=12), form=FORMS)
def test_rows_of_the_contract_come_out_as_they_went_in(rows: list[dict[str, Any]], form: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        shop.source["events"] = str(write_log(rows, Path(folder), form))
        events = events_of(shop.ingest())
    taken = [tuple(row[name] for name in COLUMNS) for row in events]
    given_ = {tuple(row[name] for name in COLUMNS) for row in rows}
    assert Counter(taken) == Counter(given_)


@FEW
@given(rows=st.lists(any_rows, min_size=1, max_size=12), form=st.sampled_from(["csv", "jsonl"]))
def test_no_row_is_lost_or_made_up_and_a_log_of_none_is_refused(rows: list[dict[str, Any]], form: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        shop.source["events"] = str(write_log(rows, Path(folder), form))
        with ExitStack() as stack:
            if not any(_may_be_an_event(row) for row in rows):
                stack.enter_context(pytest.raises(ContractError, match="Not one of the log's"))
            # Checks source = kept + duplicates + rejected, by day and in all, and the files against them.
            artifact = shop.ingest()
            assert artifact.manifest.statistics["rows"]["source"] == len(rows)


def _may_be_an_event(row: dict[str, Any]) -> bool:
    has = {name for name, value in row.items() if value.strip()}
    is_number = {name: row[name].strip() in ("", "1", "nan", "-5", "1714557600") for name in ("quantity", "price")}
    return (
        has >= {"item_id", "event_type"}
        and bool(has & {"user_id", "session_id"})
        and row["timestamp"] in ("2024-05-01", "1714557600")
        and all(is_number.values())
    )


@pytest.mark.slow
@FEW
@given(
    days=st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=4, max_size=4),
    again=st.lists(st.integers(0, 3), max_size=3),
)
def test_whatever_comes_late_and_again_the_days_end_as_one_ingest_of_all(
    days: list[list[int]], again: list[int]
) -> None:
    """`days[n]` are the days of the rows that the file of day n brings, beside one of its own."""
    with tempfile.TemporaryDirectory() as folder:
        stepwise, whole = Shop(Path(folder) / "stepwise"), Shop(Path(folder) / "whole")
        files = [_rows_of_file(number, brought) for number, brought in enumerate(days)]
        for number in [*range(4), *again, *range(4)]:
            path = write_log(files[number], stepwise.folder / str(number), "csv")
            stepwise.source["events"] = str(path)
            artifact = stepwise.ingest(day=(START + timedelta(days=number)).date().isoformat())
        everything = [row for rows in files for row in rows]
        whole.source["events"] = str(write_log(everything, whole.folder, "csv"))
        expected = {part.day: part.sha256 for part in whole.ingest().manifest.partitions}
        assert {part.day: part.sha256 for part in artifact.manifest.partitions} == expected


def _rows_of_file(number: int, brought: list[int]) -> list[dict[str, Any]]:
    # A later day's rows wait for its own file, so a file brings its own day and earlier ones.
    of_days = [number, *(min(day, number) for day in brought)]
    return [
        {
            "user_id": "u",
            "item_id": f"i{number}-{place % 4}",
            "event_type": "view",
            "timestamp": START + timedelta(days=day, hours=place % 4),
            "session_id": "s",
            "quantity": None,
            "price": None,
        }
        for place, day in enumerate(of_days)
    ]


def test_what_is_written_here_is_what_the_schema_says() -> None:
    assert {*COLUMNS, "event_id"} == set(EVENTS.names)
