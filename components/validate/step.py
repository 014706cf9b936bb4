"""Step 2: `events` -> `clean`. Rows in = kept + duplicates + quarantined, asserted and said.

A day whose rows, settings, catalogue answers and code are unchanged is taken over from the latest `clean` artifact.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from components.core.artifact import Artifact, ArtifactWriter, Partition
from components.core.day_table import DayTable
from components.core.errors import ArtifactError, ContractError
from components.core.hashing import code_sha256, json_sha256
from components.core.pipeline_metrics import Sample, counted
from components.core.schemas import CATALOG, events_schema, in_schema
from components.core.sections import ValidateSettings
from components.core.step import Step, StepContext, StepReport, latest
from components.validate import checks as table_checks
from components.validate.day import (
    DERIVED,
    QUARANTINE,
    CatalogIndex,
    DayRecord,
    count_reasons,
    day_facts,
    day_frame,
    judge_day,
    outlying_days,
    quarantine_schema,
    split,
)
from components.validate.judge import Judge, Outcome
from components.validate.page import render_page
from components.validate.results import CheckResult, Results, day_results, table_results
from components.validate.rules import Rule, event_rules

CLEAN_TABLE = "clean_events"
ROOMS = ("components.validate",)


def run(context: StepContext) -> StepReport:
    work = _Validation(context)
    days = [work.day(part) for part in context.track(work.partitions, description="validating days")]
    catalog = work.clean_catalog()
    results = work.results(days)
    quarantine = work.quarantine()
    _assert_rows_law(results, quarantine)

    output = context.output
    output.partitions.extend(record.partition for record in days if record.partition is not None)
    output.write_table("catalog.parquet", catalog)
    output.write_table("quarantine.parquet", quarantine)
    output.path("results.json").write_text(results.model_dump_json(indent=1), encoding="utf-8")
    page = render_page(
        results,
        quarantine=quarantine,
        rejects=work.events.table("rejects.parquet"),
        ingest=work.events.manifest.statistics,
        project=context.settings.project,
        example_rows=context.settings.validation.example_rows,
    )
    output.path("quality.html", is_report=True).write_text(page, encoding="utf-8")
    work.write_data_docs(output)
    _stop_on_critical(context, results)
    DayTable(context.store, CLEAN_TABLE).replace(output.partitions, whole=True)
    return StepReport(
        summary=_summary(results, reused=work.reused),
        rows=results.rows["kept"],
        statistics={
            "rows": results.rows,
            "quarantined_by_reason": results.reasons,
            "checks": Counter(check.status for check in results.checks),
            "reused_days": work.reused,
        },
        samples=_samples(results),
    )


def _samples(results: Results) -> list[Sample]:
    """Figures for Prometheus."""
    outcomes = {outcome: results.rows[outcome] for outcome in ("kept", "quarantined")}
    return [
        *counted("basketweave_source_rows", "outcome", outcomes, step="validate"),
        *counted("basketweave_quarantined_rows", "reason", results.reasons),
        *counted("basketweave_checks", "outcome", Counter(check.status for check in results.checks)),
    ]


class _Validation:
    """One run's state: the judge with its suites, and what an earlier run found."""

    def __init__(self, context: StepContext) -> None:
        self.context = context
        self.settings: ValidateSettings = context.settings.validation
        self.events: Artifact = context.inputs["events"]
        self.partitions = list(self.events.manifest.partitions)
        self.table = DayTable(context.store, CLEAN_TABLE)
        self.outlying = outlying_days(
            {part.day: part.rows for part in self.partitions}, max_gap_days=self.settings.max_gap_days
        )
        self.catalog_table = self.events.table("catalog.parquet")
        _check_schema(self.catalog_table, CATALOG, "catalog.parquet")
        self.catalog = CatalogIndex(self.catalog_table)
        self.has_ratings = False  # any day so far
        self.earlier, self.earlier_quarantine = _earlier(context)
        self.quarantined: list[pa.Table] = []
        self.reused = 0
        self.ids = _IdsAcrossDays()
        self.last_frame: pd.DataFrame | None = None
        self._judge: Judge | None = None
        self._day_suites: dict[bool, Any] = {}

    def rules(self, *, has_ratings: bool) -> tuple[Rule, ...]:
        return event_rules(self.settings, has_ratings=has_ratings)

    def day_checks(self, *, has_ratings: bool) -> tuple[table_checks.Check, ...]:
        columns = events_schema(["rating"] if has_ratings else []).names
        return table_checks.day_checks(self.settings, columns=(*columns, *DERIVED), has_catalog=self.catalog.has_items)

    @property
    def judge(self) -> Judge:
        """Made at first use: a run that reuses every day still judges the log, but imports late."""
        if self._judge is None:
            self._judge = Judge()
        return self._judge

    def day_suite(self, *, has_ratings: bool) -> Any:
        """What a day's rows are judged by; of ratings where it has the column."""
        if has_ratings not in self._day_suites:
            judged: list[Rule | table_checks.Check] = [
                *self.rules(has_ratings=has_ratings),
                *self.day_checks(has_ratings=has_ratings),
            ]
            self._day_suites[has_ratings] = self.judge.suite("a day's events", judged)
        return self._day_suites[has_ratings]

    def quarantine(self) -> pa.Table:
        """Of all days; with ratings where any has them."""
        schema = quarantine_schema(["rating"] if self.has_ratings else [])
        parts = [in_schema(part, schema) for part in self.quarantined]
        return pa.concat_tables(parts or [schema.empty_table()]).combine_chunks()

    def day(self, part: Partition) -> DayRecord:
        path = self.context.store.fetch(part.path, sha256=part.sha256)
        with pq.ParquetFile(path) as file:
            has_ratings = "rating" in file.schema_arrow.names
            looked_at = file.read(columns=["event_id", "item_id", "price"])
        self.has_ratings |= has_ratings
        self.ids.add(looked_at["event_id"])
        facts = day_facts(looked_at, self.catalog)
        is_outlying = part.day in self.outlying
        key = json_sha256(
            {
                "is_outlying": is_outlying,
                "partition": part.sha256,
                "flags": facts.flags_sha256,
                "has_catalog": self.catalog.has_items,
                "settings": self.context.settings.section_sha256(STEP.sections),
                "code": code_sha256(ROOMS),
            }
        )
        known = self.earlier.get(part.day)
        if known is not None and known.key == key and self._is_there(known):
            self.reused += 1
            self.quarantined.append(_of_day(self.earlier_quarantine, part.day))
            # What ingest counted can change while the kept rows do not.
            return known.model_copy(update=_ingest_counts(part))
        table = pq.read_table(path)
        _check_schema(table, events_schema(table.column_names), f"the partition of {part.day}")
        rules = self.rules(has_ratings=has_ratings)
        frame, reasons = day_frame(table, part.day, self.catalog, rules, is_outlying=is_outlying)
        outcomes = judge_day(self.judge, self.day_suite(has_ratings=has_ratings), rules, frame)
        self.last_frame = frame
        good, bad = split(table, part.day, reasons)
        self.quarantined.append(bad)
        last_event = pc.max(table["timestamp"]).as_py()
        return DayRecord(
            day=part.day,
            key=key,
            **_ingest_counts(part),
            rows=table.num_rows,
            kept=good.num_rows,
            quarantined=bad.num_rows,
            unknown_items=facts.unknown_items,
            median_price=facts.median_price,
            last_event=last_event.isoformat() if last_event is not None else None,
            reasons=count_reasons(reasons),
            shares={name: outcome.observed for name, outcome in outcomes.items() if outcome.observed is not None},
            failed={name: _failure(outcome) for name, outcome in sorted(outcomes.items()) if not outcome.success},
            is_outlying=is_outlying,
            partition=self._write(part.day, good, bad.num_rows) if good.num_rows else None,
        )

    def _write(self, day: date, good: pa.Table, quarantined: int) -> Partition:
        return self.table.write_day(day, good, statistics={"kept": good.num_rows, "quarantined": quarantined})

    def _is_there(self, known: DayRecord) -> bool:
        return known.partition is None or self.context.store.exists(known.partition.path)

    def results(self, days: list[DayRecord]) -> Results:
        """Every check's result, the day's and the table's, and the sums that the rows law is about."""
        rows = self.events.manifest.statistics["rows"]
        in_stretch = [day for day in days if not day.is_outlying]
        series = series_frame(in_stretch, recent_days=self.settings.recent_days)
        log = pd.DataFrame(
            {
                "staleness_days": [_staleness_days(days, self.context.moment)],
                "outlying_share": [sum(day.rows for day in days if day.is_outlying) / sum(day.rows for day in days)],
                "rejected_share": [rows["rejected"] / max(rows["source"], 1)],
                "repeated_event_ids": [float(self.ids.repeated())],
            }
        )
        is_rated = self.has_ratings
        found = day_results(days, self.rules(has_ratings=is_rated), self.day_checks(has_ratings=is_rated))
        found += self._judged("days", table_checks.series_checks(self.settings), series)
        found += self._judged("log", table_checks.log_checks(self.settings), log)
        if self.catalog.has_items:
            frame = self.catalog_table.drop_columns(["attributes"]).to_pandas()
            found += self._judged("catalogue", table_checks.catalog_checks(self.settings), frame)
        kept, quarantined = sum(day.kept for day in days), sum(day.quarantined for day in days)
        reasons: Counter[str] = Counter()
        for day in days:
            reasons.update(day.reasons)
        return Results(
            as_of=self.context.moment,
            rows={
                "source": rows["source"],
                "kept": kept,
                "duplicates": rows["duplicates"],
                "rejected": rows["rejected"],
                "quarantined": quarantined + rows["rejected"],
            },
            reasons=dict(sorted(reasons.items())),
            non_products=int((~self.catalog.is_product()).sum()),
            checks=found,
            days=days,
        )

    def _judged(self, table: str, checks: tuple[table_checks.Check, ...], frame: pd.DataFrame) -> list[CheckResult]:
        suite = self.judge.suite(table, checks)
        return table_results(table, checks, self.judge.run(suite, frame), frame)

    def clean_catalog(self) -> pa.Table:
        """The catalogue without what is no product: nothing downstream may recommend postage."""
        return self.catalog_table.filter(pa.array(self.catalog.is_product(), pa.bool_()))

    def write_data_docs(self, output: ArtifactWriter) -> None:
        if not self.settings.data_docs or self.last_frame is None:
            return
        suite = self.day_suite(has_ratings="rating" in self.last_frame)
        page = self.judge.data_docs_page(self.judge.result(suite, self.last_frame))
        output.path("data_docs/last_day.html", is_report=True).write_text(page, encoding="utf-8")


class _IdsAcrossDays:
    """Counts event_ids that stand on two days, in 8 bytes an id."""

    def __init__(self) -> None:
        self._hashes: list[np.ndarray] = []

    def add(self, ids: pa.ChunkedArray) -> None:
        # Within a day the rule of uniqueness looks; here a day counts once.
        self._hashes.append(pd.unique(pd.util.hash_array(ids.to_numpy(), categorize=False)))

    def repeated(self) -> int:
        hashes = np.concatenate(self._hashes) if self._hashes else np.empty(0, np.uint64)
        return len(hashes) - len(pd.unique(hashes))


def series_frame(days: list[DayRecord], *, recent_days: int) -> pd.DataFrame:
    """One row a day: `row_ratio` and `price_ratio` against the median of the days in the `recent_days` before; null
    where there are fewer than three."""
    frame = pd.DataFrame(
        {
            "day": [record.day for record in days],
            "rows": [float(record.rows) for record in days],
            "price": [np.nan if record.median_price is None else record.median_price for record in days],
        }
    )
    by_time = frame.set_index(pd.DatetimeIndex(pd.to_datetime(frame["day"])))
    past = by_time[["rows", "price"]].rolling(f"{recent_days}D", closed="left", min_periods=3).median()
    with np.errstate(divide="ignore", invalid="ignore"):
        frame["row_ratio"] = frame["rows"] / past["rows"].to_numpy()
        frame["price_ratio"] = (frame["price"] / past["price"].to_numpy()).where(past["price"].to_numpy() > 0)
    return frame


def _staleness_days(days: list[DayRecord], as_of: datetime) -> float:
    """Age at `as_of` of the newest event in the main stretch: a wrong time does not make an old log fresh."""
    newest = max(
        datetime.fromisoformat(day.last_event) for day in days if day.last_event is not None and not day.is_outlying
    )
    return (as_of - newest).total_seconds() / 86_400


def _earlier(context: StepContext) -> tuple[dict[date, DayRecord], pa.Table]:
    """Days of the latest `clean` artifact and its quarantine; nothing where there is none, or one of another form."""
    try:
        artifact = Artifact.open(context.store, latest(context.store, "clean").uri, kind="clean")
        results = Results.model_validate_json(artifact.path("results.json").read_bytes())
        return {record.day: record for record in results.days}, artifact.table("quarantine.parquet")
    except (ArtifactError, ValidationError):
        return {}, QUARANTINE.empty_table()


def _of_day(quarantine: pa.Table, day: date) -> pa.Table:
    return quarantine.filter(pc.equal(quarantine["day"], pa.scalar(day)))


def _ingest_counts(part: Partition) -> dict[str, int]:
    return {key: part.statistics[key] for key in ("source", "duplicates", "rejected")}


def _failure(outcome: Outcome) -> dict[str, Any]:
    return {key: value for key, value in asdict(outcome).items() if key != "success" and value is not None}


def _check_schema(table: pa.Table, schema: pa.Schema, what: str) -> None:
    if not table.schema.equals(schema):
        raise ContractError(
            f"{what} of the events artifact has the columns {table.schema.names} with other types than the contract's. "
            "Run ingest again."
        )


def _assert_rows_law(results: Results, quarantine: pa.Table) -> None:
    rows = results.rows
    assert rows["source"] == rows["kept"] + rows["duplicates"] + rows["quarantined"], rows
    assert quarantine.num_rows == rows["quarantined"] - rows["rejected"], rows


def _stop_on_critical(context: StepContext, results: Results) -> None:
    """Raise ContractError when a table as a whole is bad, after putting the page where it outlives this run."""
    failed = [check for check in results.checks if check.status == "failed"]
    if not failed:
        return
    folder = f"failed/validate-{re.sub(r'[^A-Za-z0-9_.-]', '_', context.run_id)}"
    for name in ("quality.html", "results.json", "quarantine.parquet"):
        context.store.put_file(context.output.path(name), f"{folder}/{name}")
    first = failed[0]
    others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    raise ContractError(
        f"The data breaks the contract as a whole: not '{first.sentence}'{others}: {first.detail}. "
        f"See {context.store.uri(folder)}/quality.html."
    )


def _summary(results: Results, *, reused: int) -> str:
    rows: Mapping[str, int] = results.rows
    statuses = Counter(check.status for check in results.checks)
    days = f"{len(results.days):,} days" + (f" ({reused:,} unchanged)" if reused else "")
    warned = f", {statuses['warning']} warned" if statuses["warning"] else ""
    return (
        f"{rows['source']:,} rows = {rows['kept']:,} kept + {rows['duplicates']:,} duplicates + "
        f"{rows['quarantined']:,} quarantined · {days} · {len(results.checks)} checks{warned}"
    )


STEP = Step(
    name="validate",
    kind="clean",
    inputs=("events",),
    sections=("validation",),
    rooms=ROOMS,
    run=run,
)
