"""Event tables: a day is replaced whole, and what was read before stays readable."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.artifact import Partition
from components.core.day_table import DayTable
from components.core.errors import ArtifactError
from components.core.store import Store

FRIDAY, SATURDAY = date(2024, 3, 1), date(2024, 3, 2)


@pytest.fixture
def table(store: Store) -> DayTable:
    return DayTable(store, "events")


def rows(*numbers: int) -> pa.Table:
    return pa.table({"number": list(numbers)})


def read(store: Store, partition: Partition) -> list[int]:
    return pq.read_table(store.fetch(partition.path, sha256=partition.sha256))["number"].to_pylist()


def test_a_table_begins_empty(table: DayTable) -> None:
    assert table.days() == {}


def test_a_day_that_is_run_again_replaces_that_day_alone(store: Store, table: DayTable) -> None:
    table.replace([table.write_day(FRIDAY, rows(1)), table.write_day(SATURDAY, rows(2))], whole=False)
    table.replace([table.write_day(FRIDAY, rows(3, 4), statistics={"rejected": 5})], whole=False)
    days = table.days()
    assert {day: read(store, part) for day, part in days.items()} == {FRIDAY: [3, 4], SATURDAY: [2]}
    assert (days[FRIDAY].rows, days[FRIDAY].statistics) == (2, {"rejected": 5})


def test_an_older_snapshot_stays_readable(store: Store, table: DayTable) -> None:
    before = table.write_day(FRIDAY, rows(1))
    table.replace([before], whole=False)
    table.replace([table.write_day(FRIDAY, rows(2))], whole=False)
    assert read(store, before) == [1]


def test_a_whole_replacement_drops_the_other_days(table: DayTable) -> None:
    table.replace([table.write_day(FRIDAY, rows(1))], whole=False)
    table.replace([table.write_day(SATURDAY, rows(2))], whole=True)
    assert list(table.days()) == [SATURDAY]


def test_a_day_that_is_written_and_not_yet_named_is_not_there(table: DayTable) -> None:
    table.write_day(FRIDAY, rows(1))
    assert table.days() == {}


def test_equal_rows_are_one_file(store: Store, table: DayTable) -> None:
    first, second = table.write_day(FRIDAY, rows(1, 2)), table.write_day(FRIDAY, rows(1, 2))
    assert first == second
    assert len(store.list_dir("tables/events/day=2024-03-01")) == 1


def test_a_torn_day_file_is_noticed_and_replaced(store: Store, table: DayTable) -> None:
    partition = table.write_day(FRIDAY, rows(1, 2))
    path = Path(store.path(partition.path))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match="is not what was written"):
        read(store, partition)
    assert table.write_day(FRIDAY, rows(1, 2)) == partition
    assert read(store, partition) == [1, 2]
