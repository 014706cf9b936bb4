"""Step 1: the shop's log -> `events`. Rows in the source = kept + duplicates + rejected, by day and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.artifact import Partition
from components.core.clock import DAY, end_of_day, midnight
from components.core.day_table import DayTable
from components.core.errors import ContractError, SettingsError
from components.core.hashing import file_sha256, json_sha256
from components.core.pipeline_metrics import Sample, counted
from components.core.schemas import CATALOG, EVENT_COLUMNS, EVENTS
from components.core.step import Step, StepContext, StepReport
from components.core.store import Store
from components.ingest import late, log, record
from components.ingest.catalog import read_catalog
from components.ingest.mapping import (
    CATALOG_COLUMNS,
    Expressions,
    explain_binder,
    map_events,
    mentioned,
    refuse_renamed_columns,
)
from components.ingest.profile import Profile, load_profile, profile_path
from components.ingest.readers import explain_unreadable, open_source
from components.ingest.sources import catalog_files, event_files
from components.ingest.sql import columns_of
from components.ingest.titles import readable

EVENTS_TABLE = "events"
REJECTED_TABLE = "rejected_events"


def run(context: StepContext) -> StepReport:
    settings = context.settings.source
    profile = load_profile(settings.profile)
    day = _day(context.options)
    table = DayTable(context.store, EVENTS_TABLE)
    with (
        context.store.staging() as folder,
        closing(log.connect(str(folder / "spill"))) as con,
        _explained(con, context, profile, folder),
    ):
        expressions = _open(con, context, profile, folder)
        known = table.days()
        # Earlier days that the table has can be re-opened; those that it lacks, and later ones, have their own runs.
        days_read = None if day is None else {day, *(known_day for known_day in known if known_day < day)}
        other_days = log.cast_events(con, expressions, days=days_read, where=f"The log ({settings.profile})")
        late_rows, came_late = EVENTS.empty_table(), {}
        if day is not None:
            other_days += _rows_before(con, day)
            late_rows = late.set_apart(con, day)
            came_late[day] = late.take_up(con, context.store, day)
        log.drop_duplicates(con)
        before = None if day is None else late.evening_before(context.store, known, day, settings.session_gap_minutes)
        log.cut_sessions(con, gap_minutes=settings.session_gap_minutes, before=before)
        counts = log.count_days(con)
        rejects = log.rejected_rows(con)
        _refuse_nothing(counts, rejects, day)
        catalog, catalog_counts = _catalog(con, profile)
        defects = _defects(con, profile)
        written = [
            table.write_day(key, rows, statistics=counts[key].statistics())
            for key, rows in context.track(log.stream_days(con), description="writing days", total=len(counts))
        ]
        reopened = []
        if day is not None:
            reopened = late.reopen(
                context.store,
                {**known, **{part.day: part for part in written}},
                late_rows,
                table=table,
                arrived=day,
                gap_minutes=settings.session_gap_minutes,
                spill=folder / "spill",
            )
    source = _source_sha256(context)
    overwrote = record.overwritten(context.store, known, source=source, day=day)
    late.remember(context.store, {**came_late, **{one.partition.day: one.late for one in reopened}}, whole=day is None)
    days = table.replace([*written, *(one.partition for one in reopened)], whole=day is None)
    rejected_days = _write_rejects(context.store, rejects, counts, whole=day is None)
    record.remember(context.store, days, source=source, day=day, overwrote=overwrote)

    as_of = context.as_of or end_of_day(midnight(max(days)))
    partitions = _known_at(context.store, days, as_of)
    if not partitions:
        raise ContractError(f"The log has no event before {as_of.isoformat()}; its first day is {min(days)}.")
    later = sum(part.rows for part in days.values()) - sum(part.rows for part in partitions)
    without_day = _without_day(rejects, counts, as_of)
    all_rejects = _rejects_of(context.store, rejected_days, partitions, days, without_day)
    context.output.partitions.extend(partitions)
    context.output.write_table("catalog.parquet", catalog)
    context.output.write_table("rejects.parquet", all_rejects)
    late_counts = {one.partition.day: one.new_rows for one in reopened}
    totals = _totals(partitions, without_day.num_rows)
    return StepReport(
        summary=_summary(totals, len(partitions), catalog.num_rows, late_rows=late_counts),
        rows=totals["kept"],
        as_of=as_of,
        statistics={
            "rows": totals,
            "left_out": {"other_days": other_days - sum(late_counts.values()), "after_as_of": later},
            "late_rows": {reopened_day.isoformat(): rows for reopened_day, rows in late_counts.items()},
            "rejected_by_reason": _by_reason(all_rejects),
            "catalog": catalog_counts,
            "defects": defects,
            "profile": {"name": profile.name, "title": profile.title, "licence": profile.licence},
            "ignored_columns": list(expressions.ignored),
            "public_columns": _public_columns(expressions),
        },
        samples=_samples(totals, all_rejects, last_day=max(part.day for part in partitions)),
    )


def fingerprint(context: StepContext) -> Any:
    """Content of the source's files, and what the events table holds of others: see record.py."""
    day = _day(context.options)
    days = DayTable(context.store, EVENTS_TABLE).days()
    source = _source_sha256(context)
    return {
        "source": source,
        "overwrites": record.overwritten(context.store, days, source=source, day=day),
        "other_days": record.other_days(days, day),
    }


def _source_sha256(context: StepContext) -> str:
    settings = context.settings.source
    profile = load_profile(settings.profile)
    catalog = catalog_files(profile, settings)
    return json_sha256(
        {
            "profile": file_sha256(profile_path(settings.profile)),
            "events": event_files(profile, settings).fingerprint(),
            "catalog": catalog.fingerprint() if catalog is not None else None,
            "session_gap_minutes": settings.session_gap_minutes,
        }
    )


def _day(options: Mapping[str, Any]) -> date | None:
    text = options.get("day")
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise SettingsError(f"--day is '{text}', which is no date. Write it as 2017-12-31.") from error


@contextmanager
def _explained(con: duckdb.DuckDBPyConnection, context: StepContext, profile: Profile, folder: Path) -> Iterator[None]:
    """DuckDB opens files and reads them later: what it then meets is a sentence about the file."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.InternalException):
        raise
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise
        files = event_files(profile, context.settings.source)
        raise explain_unreadable(con, files.format, files.local_paths(folder / "events"), error) from error


def _open(con: duckdb.DuckDBPyConnection, context: StepContext, profile: Profile, folder: Path) -> Expressions:
    """Open the source's files and map the events' columns."""
    settings = context.settings.source
    con.create_function("readable", lru_cache(maxsize=None)(readable(profile.abbreviations)), ["VARCHAR"], "VARCHAR")
    by_file = open_source(
        con,
        "events_source",
        event_files(profile, settings),
        folder / "events",
        flat=EVENT_COLUMNS if profile.same_names else (),
    )
    catalog = catalog_files(profile, settings)
    if catalog is not None:
        flat = CATALOG_COLUMNS if profile.same_names else ()
        open_source(con, "catalog_source", catalog, folder / "catalog", flat=flat)
    found = map_events(
        columns_of(con, "events_source"),
        profile.events.columns,
        same_names=profile.same_names,
        where=f"The log ({settings.profile})",
    )
    refuse_renamed_columns(by_file, found)
    return found


def _catalog(con: duckdb.DuckDBPyConnection, profile: Profile) -> tuple[pa.Table, dict[str, Any]]:
    if profile.catalog is not None and profile.catalog.query is not None:
        try:
            con.execute(f"CREATE TEMP TABLE catalog_query AS {profile.catalog.query}")
        except duckdb.BinderException as error:
            raise explain_binder(error, columns_of(con, "events_source"), "The log") from error
        return read_catalog(con, profile, relation="catalog_query")
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'catalog_source'").fetchall():
        return CATALOG.empty_table(), {"source": 0, "kept": 0, "duplicates": 0, "rejected": 0}
    return read_catalog(con, profile, relation="catalog_source")


def _defects(con: duckdb.DuckDBPyConnection, profile: Profile) -> list[dict[str, Any]]:
    """The profile's known flaws of the log, counted in the source that was read."""
    if not profile.defects:
        return []
    try:
        row = con.execute(f"SELECT {', '.join(defect.count for defect in profile.defects)}").fetchall()[0]
    except duckdb.BinderException as error:
        raise explain_binder(error, columns_of(con, "events_source"), "The log") from error
    return [
        {"name": defect.name, "sentence": defect.sentence, "count": int(count)}
        for defect, count in zip(profile.defects, row, strict=True)
    ]


def _refuse_nothing(counts: Mapping[date, log.DayCounts], rejects: pa.Table, day: date | None) -> None:
    """Stop before the table is touched when there is nothing to put into it."""
    if counts:
        return
    if day is not None:
        raise ContractError(f"The log has no usable event on {day}. Nothing was changed; give a day that it covers.")
    reasons = _by_reason(rejects)
    if not reasons:
        raise ContractError("The log has no rows. Give files that have some.")
    reason, number = next(iter(reasons.items()))
    raise ContractError(
        f"Not one of the log's {rejects.num_rows:,} rows can be used; {number:,} because: {reason}. "
        "docs/data-contract.md says what each column must hold."
    )


def _rows_before(con: duckdb.DuckDBPyConnection, day: date) -> int:
    ((rows,),) = con.execute(f"SELECT count(*) FROM typed WHERE timestamp < '{midnight(day).isoformat()}'").fetchall()
    return int(rows)


def _known_at(store: Store, days: Mapping[date, Partition], as_of: datetime) -> list[Partition]:
    """The partitions of events before `as_of`; a day that it cuts gets a file of its own, outside the table's state."""
    known = [part for day, part in days.items() if midnight(day) + DAY <= as_of]
    cut = days.get(as_of.date())
    if cut is not None and as_of > midnight(as_of.date()):
        table = pq.read_table(store.fetch(cut.path, sha256=cut.sha256))
        table = table.filter(pc.less(table["timestamp"], pa.scalar(as_of)))
        if table.num_rows:
            # Duplicates and rejects are counted when the day is whole.
            statistics = log.DayCounts(kept=table.num_rows).statistics()
            known.append(DayTable(store, EVENTS_TABLE).write_day(cut.day, table, statistics=statistics))
    return known


def _write_rejects(
    store: Store, rejects: pa.Table, counts: Mapping[date, log.DayCounts], *, whole: bool
) -> dict[date, Partition]:
    """Keep the rejects beside their day, so that replacing a day replaces them too."""
    table = DayTable(store, REJECTED_TABLE)
    # A day that is replaced alone must lose its old rejects even when it has none now.
    days = [day for day, count in counts.items() if count.rejected or not whole]
    written = [table.write_day(day, rejects.filter(pc.equal(rejects["day"], pa.scalar(day)))) for day in days]
    return table.replace(written, whole=whole)


def _without_day(rejects: pa.Table, counts: Mapping[date, log.DayCounts], as_of: datetime) -> pa.Table:
    """Rejects of this run whose time cannot be read, or whose day has no event."""
    known = [day is None or (day not in counts and midnight(day) < as_of) for day in rejects["day"].to_pylist()]
    return rejects.filter(pa.array(known, pa.bool_()))


def _rejects_of(
    store: Store,
    rejected_days: Mapping[date, Partition],
    partitions: list[Partition],
    days: Mapping[date, Partition],
    without_day: pa.Table,
) -> pa.Table:
    """Rejects of the artifact's whole days, then those without a day."""
    whole = {part.day for part in partitions if part.sha256 == days[part.day].sha256}
    parts = [
        pq.read_table(store.fetch(part.path, sha256=part.sha256), schema=log.REJECTS)
        for day, part in rejected_days.items()
        if day in whole
    ]
    return pa.concat_tables([*parts, without_day]).combine_chunks()


def _totals(partitions: list[Partition], without_day: int) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for part in partitions:
        sums.update(part.statistics)
    sums.update({"source": without_day, "rejected": without_day})
    totals = {key: sums[key] for key in ("source", "kept", "duplicates", "rejected")}
    assert totals["source"] == totals["kept"] + totals["duplicates"] + totals["rejected"], totals
    assert totals["kept"] == sum(part.rows for part in partitions), totals
    return {**totals, "rejected_without_day": without_day}


def _samples(totals: Mapping[str, int], rejects: pa.Table, *, last_day: date) -> list[Sample]:
    """Figures for Prometheus; a row that breaks two rules counts under both reasons."""
    reasons = Counter(reason for row in rejects["reason"].to_pylist() for reason in row.split("; "))
    outcomes = {outcome: totals[outcome] for outcome in ("kept", "duplicates", "rejected")}
    return [
        *counted("basketweave_source_rows", "outcome", outcomes, step="ingest"),
        *counted("basketweave_rejected_rows", "reason", reasons),
        Sample("basketweave_source_last_day_timestamp_seconds", {}, midnight(last_day).timestamp()),
    ]


def _by_reason(rejects: pa.Table) -> dict[str, int]:
    counted = Counter(rejects["reason"].to_pylist())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _public_columns(expressions: Expressions) -> list[str]:
    """The source's columns that may be shown as examples: those of the item and the event, none of the user."""
    private = [expressions.get(name) for name in ("user_id", "session_id", "event_id")]
    public = [expressions.get(name) for name in ("item_id", "event_type", "timestamp", "quantity", "price", "rating")]
    return sorted(mentioned(public, expressions.source) - mentioned(private, expressions.source))


def _summary(totals: Mapping[str, int], days: int, items: int, *, late_rows: Mapping[date, int]) -> str:
    late_part = f" · {sum(late_rows.values()):,} late rows re-opened {len(late_rows):,} days" if late_rows else ""
    catalog = f"{items:,} items in the catalogue" if items else "no catalogue"
    return (
        f"{totals['source']:,} rows = {totals['kept']:,} kept + {totals['duplicates']:,} duplicates + "
        f"{totals['rejected']:,} rejected · {days:,} days{late_part} · {catalog}"
    )


STEP = Step(
    name="ingest",
    kind="events",
    inputs=(),
    sections=("source",),
    rooms=("components.ingest",),
    run=run,
    fingerprint=fingerprint,
)
