"""Late rows: what a day's files hold of earlier days that the table already has. They re-open those days, and no other.

A day's partition is its own rows and the late ones, told apart by the table `late_events` (a file a day, with the day
of arrival). So a day that is ingested again keeps what came late, and a day's files that are corrected take back what
they had brought before.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.artifact import Partition
from components.core.clock import DAY, midnight
from components.core.day_table import DayTable
from components.core.schemas import RATED_EVENTS, events_schema, in_schema
from components.core.store import Store
from components.ingest import log

LATE_TABLE = "late_events"
LATE = RATED_EVENTS.append(pa.field("arrived", pa.date32(), nullable=False))


@dataclass(frozen=True, kw_only=True)
class Reopened:
    """A day that was written again for its late rows."""

    partition: Partition
    late: pa.Table
    """LATE: all that ever came late for the day."""
    new_rows: int
    """How many of them the day's partition lacked."""


def take_up(con: duckdb.DuckDBPyConnection, store: Store, day: date) -> pa.Table:
    """Add to `typed` what came late for `day` in other days' files; returns it (LATE), less what `typed` had itself."""
    late = _of_other_days(_late_rows(store, day), day)
    con.register("came_late", late)
    if late["rating"].null_count < len(late) and "rating" not in log.schema_of(con, "typed").names:
        con.execute("ALTER TABLE typed ADD COLUMN rating DOUBLE")
    columns = ", ".join(log.schema_of(con, "typed").names)
    own = con.sql("SELECT DISTINCT event_id FROM typed WHERE reason IS NULL").to_arrow_table()["event_id"]
    con.execute(f"INSERT INTO typed ({columns}) SELECT {columns} FROM came_late")
    con.unregister("came_late")
    return late.filter(pc.invert(pc.is_in(late["event_id"], value_set=own)))


def set_apart(con: duckdb.DuckDBPyConnection, day: date) -> pa.Table:
    """Take the rows of earlier days out of `typed`: events, one row an event_id. Those that cannot be cast are gone."""
    earlier = f"timestamp < '{midnight(day).isoformat()}'"
    schema = log.schema_of(con, "typed")
    order = ", ".join(name for name in schema.names if name != "event_id")
    rows = con.sql(
        f"SELECT {', '.join(schema.names)} FROM typed WHERE {earlier} AND reason IS NULL "
        f"QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY {order}) = 1 ORDER BY timestamp, event_id"
    ).to_arrow_table()
    con.execute(f"DELETE FROM typed WHERE {earlier}")
    return rows.cast(schema)


def reopen(
    store: Store,
    days: Mapping[date, Partition],
    rows: pa.Table,
    *,
    table: DayTable,
    arrived: date,
    gap_minutes: float,
    spill: Path,
) -> list[Reopened]:
    """The days that `rows` (events of days in `days`), which arrived with the files of `arrived`, change."""
    of_row = pc.cast(rows["timestamp"], pa.date32())
    known = DayTable(store, LATE_TABLE).days()
    touched = {*pc.unique(of_row).to_pylist(), *(day for day in known if day in days and day != arrived)}
    reopened = []
    for day in sorted(touched):
        brought = rows.filter(pc.equal(of_row, pa.scalar(day, pa.date32())))
        before = _late_rows(store, day)
        if not brought.num_rows and not pc.any(pc.equal(before["arrived"], pa.scalar(arrived, pa.date32()))).as_py():
            continue
        present = pq.read_table(store.fetch(days[day].path, sha256=days[day].sha256))
        own = _without(present, before["event_id"])
        others = _of_other_days(before, arrived)
        new = _without(_without(brought, own["event_id"]), others["event_id"])
        late = pa.concat_tables(
            [
                others,
                in_schema(new, RATED_EVENTS).append_column(
                    LATE.field("arrived"), pa.array([arrived] * len(new), LATE.field("arrived").type)
                ),
            ]
        )
        ids = {*own["event_id"].to_pylist(), *late["event_id"].to_pylist()}
        if ids == set(present["event_id"].to_pylist()) and late.num_rows == before.num_rows:
            continue
        merged = _sessions_cut_anew(
            own,
            late.drop_columns("arrived"),
            before=evening_before(store, days, day, gap_minutes),
            gap_minutes=gap_minutes,
            spill=spill,
        )
        old = days[day].statistics
        counts = log.DayCounts(kept=merged.num_rows, duplicates=old["duplicates"], rejected=old["rejected"])
        partition = table.write_day(day, merged, statistics=counts.statistics())
        reopened.append(Reopened(partition=partition, late=late, new_rows=merged.num_rows - present.num_rows))
    return reopened


def remember(store: Store, late: Mapping[date, pa.Table], *, whole: bool) -> None:
    """Keep each day's late rows (LATE). Before the events' table names the days: a run that dies between repeats."""
    table = DayTable(store, LATE_TABLE)
    kept = table.days()
    # A day that never had a late row needs no file that says so.
    written = [table.write_day(day, rows) for day, rows in late.items() if rows.num_rows or day in kept]
    if written or (whole and kept):
        table.replace(written, whole=whole)


def evening_before(store: Store, days: Mapping[date, Partition], day: date, gap_minutes: float) -> pa.Table | None:
    """The rows of the day before `day` that a visit could continue."""
    yesterday = days.get(day - DAY)
    if yesterday is None:
        return None
    table = pq.read_table(store.fetch(yesterday.path, sha256=yesterday.sha256))
    since = midnight(day) - timedelta(minutes=gap_minutes)
    return table.filter(pc.and_(pc.greater_equal(table["timestamp"], pa.scalar(since)), pc.is_valid(table["user_id"])))


def _sessions_cut_anew(
    own: pa.Table, late: pa.Table, *, before: pa.Table | None, gap_minutes: float, spill: Path
) -> pa.Table:
    """Own and late rows of a day, sorted; a visit that ingest had cut is cut anew among all of them."""
    is_rated = "rating" in own.column_names or late["rating"].null_count < len(late)
    schema = events_schema(["rating"] if is_rated else [])
    own, late = in_schema(own, schema), in_schema(late, schema)
    columns = ", ".join(schema.names)
    was_cut = r"session_id = user_id || '@' || regexp_extract(session_id, '(\d+)$', 1)"
    with closing(log.connect(str(spill))) as con:
        con.register("own", own)
        con.register("late", late)
        con.execute(
            f"CREATE TEMP TABLE kept AS SELECT * REPLACE (CASE WHEN {was_cut} THEN NULL ELSE session_id END "
            f"AS session_id) FROM own UNION ALL SELECT {columns} FROM late"
        )
        log.cut_sessions(con, gap_minutes=gap_minutes, before=before)
        rows = con.sql(f"SELECT {columns} FROM sessioned ORDER BY timestamp, event_id").to_arrow_table()
    return rows.cast(schema).combine_chunks()


def _late_rows(store: Store, day: date) -> pa.Table:
    part = DayTable(store, LATE_TABLE).days().get(day)
    return (
        LATE.empty_table() if part is None else pq.read_table(store.fetch(part.path, sha256=part.sha256), schema=LATE)
    )


def _of_other_days(late: pa.Table, arrived: date) -> pa.Table:
    return late.filter(pc.not_equal(late["arrived"], pa.scalar(arrived, pa.date32())))


def _without(rows: pa.Table, event_ids: pa.ChunkedArray) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["event_id"], value_set=event_ids.combine_chunks())))
