"""The log in DuckDB: cast, judged castable or not, without duplicates, cut into sessions, streamed out day by day.

events_source ──cast──▶ typed ──▶ rejected          rows that cannot be cast, each with its reasons
                          └─────▶ kept ──▶ days     one row an event_id
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
import pyarrow as pa

from components.core.schemas import TIMESTAMP, events_schema, in_schema
from components.ingest.mapping import (
    FIRST_YEAR,
    LAST_YEAR,
    Expressions,
    any_time_cast,
    explain_binder,
    number_cast,
    refuse_nested,
    text_cast,
    time_cast,
)
from components.ingest.sql import columns_of, identifier

REJECTS = pa.schema(
    [
        # The source's row: JSON text, or the very line where not even that could be read.
        pa.field("row", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        # Null where the row's time cannot be read.
        pa.field("day", pa.date32()),
    ]
)
# An id or a kind that is longer is no id: the row is put aside, and so much of it is kept.
MAX_TEXT = 1000
MAX_REJECT = 10_000
_TEXTS = ("event_id", "user_id", "item_id", "event_type", "session_id")
_NUMBERS = ("quantity", "price", "rating")
_MICROSECONDS_A_DAY = 86_400_000_000
_BATCH_ROWS = 100_000


@dataclass(frozen=True)
class DayCounts:
    """The rows law of one day: source = kept + duplicates + rejected."""

    kept: int = 0
    duplicates: int = 0
    rejected: int = 0

    def statistics(self) -> dict[str, int]:
        source = self.kept + self.duplicates + self.rejected
        return {"source": source, "kept": self.kept, "duplicates": self.duplicates, "rejected": self.rejected}


def connect(spill_folder: str) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory that spills to `spill_folder`; naive times are UTC.

    Its results must be read to the end (`fetchall`, not `fetchone`) before the connection takes the next query.
    """
    con = duckdb.connect(config={"temp_directory": spill_folder})
    con.execute("SET enable_progress_bar = false")
    con.execute("SET TimeZone = 'UTC'")
    # A parquet file's statistics leave NaN out, and DuckDB would conclude from them that nothing is NaN.
    con.execute("SET disabled_optimizers = 'statistics_propagation'")
    return con


def schema_of(con: duckdb.DuckDBPyConnection, relation: str) -> pa.Schema:
    """EVENTS or RATED_EVENTS, by the relation's columns."""
    return events_schema(columns_of(con, relation))


def cast_events(
    con: duckdb.DuckDBPyConnection, expressions: Expressions, *, days: Collection[date] | None, where: str
) -> int:
    """Make the table `typed`: the contract's columns, `reason` (null: castable) and the raw `row` of a reject.

    With `days`, rows of other days are left out, and their number returned; a row whose time cannot be read belongs to
    no day and stays.
    """
    source = columns_of(con, "events_source")
    names = events_schema(expressions.by_column).names
    raw = ", ".join(f"{expressions.get(name)} AS {name}" for name in names)
    try:
        con.execute(f"CREATE TEMP VIEW events_raw AS SELECT {raw}, s FROM events_source s")
        types = columns_of(con, "events_raw")
    except duckdb.BinderException as error:
        raise explain_binder(error, source, where) from error
    refuse_nested({name: types[name] for name in names}, where)
    cast = {name: text_cast(name, types[name]) for name in _TEXTS}
    cast["timestamp"] = time_cast("timestamp", types["timestamp"])
    cast |= {name: number_cast(name, types[name]) for name in _NUMBERS if name in names}
    selected = ", ".join(f"{cast[name]} AS {name}, {name} AS raw_{name}" for name in names)
    of_days = ""
    if days is not None:
        listed = ", ".join(f"DATE '{day.isoformat()}'" for day in sorted(days))
        of_days = f"WHERE timestamp IS NULL OR CAST(timestamp AS DATE) IN ({listed})"
    con.execute(
        f"""
        CREATE TEMP TABLE typed AS
        SELECT * REPLACE (coalesce(event_id, {_row_hash(names)}) AS event_id),
               CASE WHEN reason IS NOT NULL THEN left(to_json(s)::VARCHAR, {MAX_REJECT}) END AS row
        FROM (
            SELECT {", ".join(names)}, nullif(concat_ws('; ', {", ".join(_reasons(types))}), '') AS reason, s
            FROM (SELECT {selected}, s FROM events_raw) {of_days}
        )
        """
    )
    con.execute("ALTER TABLE typed DROP COLUMN s")
    if days is None:
        return 0
    ((left_out,),) = con.execute(
        "SELECT (SELECT count(*) FROM events_source) - (SELECT count(*) FROM typed)"
    ).fetchall()
    return int(left_out)


def _reasons(types: dict[str, str]) -> list[str]:
    """Expressions that are null, or say why a row cannot be an event."""
    given = {name: f"nullif(trim(CAST(raw_{name} AS VARCHAR)), '') IS NOT NULL" for name in types}
    other_years = f"lies outside the years {FIRST_YEAR} to {LAST_YEAR}"
    reasons = [
        "CASE WHEN item_id IS NULL THEN 'no item_id' END",
        "CASE WHEN event_type IS NULL THEN 'no event_type' END",
        "CASE WHEN user_id IS NULL AND session_id IS NULL THEN 'neither user_id nor session_id' END",
        f"CASE WHEN timestamp IS NOT NULL THEN NULL WHEN NOT {given['timestamp']} THEN 'no timestamp' "
        f"WHEN {any_time_cast('raw_timestamp', types['timestamp'])} IS NOT NULL THEN 'timestamp {other_years}' "
        "ELSE 'timestamp is not a time' END",
    ]
    for name in _TEXTS:
        reasons.append(
            f"CASE WHEN strlen({name}) <= {MAX_TEXT} THEN NULL WHEN length({name}) > {MAX_TEXT} "
            f"THEN '{name} is longer than {MAX_TEXT:,} characters' END"
        )
        # Some libraries end a text there, and two ids would be one.
        reasons.append(f"CASE WHEN contains({name}, chr(0)) THEN '{name} has a NUL byte' END")
    for name in (name for name in _NUMBERS if name in types):
        is_nan = f"lower(trim(CAST(raw_{name} AS VARCHAR))) = 'nan'"
        reasons.append(
            f"CASE WHEN isinf({name}) THEN '{name} is infinite' WHEN {name} IS NOT NULL THEN NULL "
            f"WHEN {given[name]} AND NOT {is_nan} THEN '{name} is not a number' END"
        )
    return reasons


def _row_hash(names: list[str]) -> str:
    """Identity of a row without an event_id: equal in every contract column means equal here."""
    columns = [name for name in names if name != "event_id"]
    texts = [f"epoch_us({name})" if name == "timestamp" else name for name in columns]
    return f"md5(concat_ws(chr(31), {', '.join(f'coalesce(CAST({text} AS VARCHAR), chr(30))' for text in texts)}))"


def drop_duplicates(con: duckdb.DuckDBPyConnection) -> int:
    """Make `kept`: the first row of each event_id. Returns how many were dropped."""
    names = schema_of(con, "typed").names
    columns = ", ".join(names)
    rows, distinct = con.execute(
        "SELECT count(*), count(DISTINCT event_id) FROM typed WHERE reason IS NULL"
    ).fetchall()[0]
    if rows == distinct:  # the window below costs as much as all the rest
        con.execute(f"CREATE TEMP VIEW kept AS SELECT {columns} FROM typed WHERE reason IS NULL")
    else:
        order = ", ".join(["timestamp", *(name for name in names if name not in ("timestamp", "event_id"))])
        con.execute(
            f"CREATE TEMP TABLE kept AS SELECT {columns} FROM typed WHERE reason IS NULL "
            f"QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY {order}) = 1"
        )
    return int(rows - distinct)


def cut_sessions(con: duckdb.DuckDBPyConnection, *, gap_minutes: float, before: pa.Table | None = None) -> None:
    """Make `sessioned`: `kept`, with a session_id where it had none.

    A user's silence longer than the gap begins a new session. `before` (EVENTS) are the last rows of the day before,
    so that a day which is ingested alone continues the visits that midnight cut.
    """
    schema = schema_of(con, "kept")
    columns = ", ".join(schema.names)
    ((missing,),) = con.execute("SELECT count(*) FROM kept WHERE session_id IS NULL").fetchall()
    if missing == 0:
        con.execute("CREATE TEMP VIEW sessioned AS SELECT * FROM kept")
        return
    con.register("before_midnight", schema.empty_table() if before is None else in_schema(before, schema))
    con.execute(
        f"""
        CREATE TEMP TABLE sessioned AS
        WITH together AS (
            SELECT {columns}, false AS is_before FROM kept WHERE session_id IS NULL
            UNION ALL SELECT {columns}, true FROM before_midnight
        ), gaps AS (
            SELECT *, timestamp - lag(timestamp) OVER by_user > to_microseconds({round(gap_minutes * 60e6)}) AS is_late,
                   row_number() OVER by_user = 1 AS is_first
            FROM together WINDOW by_user AS (PARTITION BY user_id ORDER BY timestamp, event_id)
        ), starts AS (
            SELECT *, CASE WHEN is_before THEN session_id
                           WHEN is_first OR is_late THEN user_id || '@' || epoch_ms(timestamp) END AS start
            FROM gaps
        )
        SELECT * EXCLUDE (is_before, is_late, is_first, start) REPLACE (
            last_value(start IGNORE NULLS) OVER (PARTITION BY user_id ORDER BY timestamp, event_id) AS session_id
        ) FROM starts QUALIFY NOT is_before
        UNION ALL SELECT {columns} FROM kept WHERE session_id IS NOT NULL
        """
    )
    con.unregister("before_midnight")


def count_days(con: duckdb.DuckDBPyConnection) -> dict[date, DayCounts]:
    """Counts of every day that has a kept event."""
    rows = con.execute(
        """
        WITH seen AS (
            SELECT CAST(timestamp AS DATE) AS day, count(*) FILTER (reason IS NULL) AS castable,
                   count(*) FILTER (reason IS NOT NULL) AS rejected
            FROM typed WHERE timestamp IS NOT NULL GROUP BY day
        ), stayed AS (SELECT CAST(timestamp AS DATE) AS day, count(*) AS kept FROM kept GROUP BY day)
        SELECT day, kept, castable - kept, rejected FROM stayed JOIN seen USING (day) ORDER BY day
        """
    ).fetchall()
    return {day: DayCounts(kept, duplicates, rejected) for day, kept, duplicates, rejected in rows}


def rejected_rows(con: duckdb.DuckDBPyConnection) -> pa.Table:
    """Every rejected row (REJECTS), sorted."""
    return (
        con.sql(
            f"""
        SELECT left(line, {MAX_REJECT}) AS row, reason, CAST(NULL AS DATE) AS day FROM events_source_unreadable
        UNION ALL SELECT row, reason, CAST(timestamp AS DATE) FROM typed WHERE reason IS NOT NULL
        ORDER BY day, reason, row
        """
        )
        .to_arrow_table()
        .cast(REJECTS)
    )


def stream_days(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[date, pa.Table]]:
    """(day, its rows as EVENTS or RATED_EVENTS, sorted by time and event_id), oldest day first."""
    schema = schema_of(con, "sessioned")
    columns = ", ".join(map(identifier, schema.names))
    reader = con.sql(f"SELECT {columns} FROM sessioned ORDER BY timestamp, event_id").to_arrow_reader(_BATCH_ROWS)
    current: date | None = None
    parts: list[pa.Table] = []
    for batch in reader:
        table = pa.Table.from_batches([batch]).cast(schema)
        for day, part in _split_days(table):
            if day != current:
                if current is not None:
                    yield current, pa.concat_tables(parts).combine_chunks()
                current, parts = day, []
            parts.append(part)
    if current is not None:
        yield current, pa.concat_tables(parts).combine_chunks()


def _split_days(table: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    microseconds = table["timestamp"].cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    days = microseconds // _MICROSECONDS_A_DAY
    starts = np.flatnonzero(np.diff(days, prepend=days[:1] - 1))
    for start, end in zip(starts, [*starts[1:], len(days)], strict=True):
        yield date(1970, 1, 1) + timedelta(days=int(days[start])), table.slice(start, end - start)
