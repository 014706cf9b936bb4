"""One day: what the catalogue says of its rows, the frame that is judged, and what came out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from components.core.artifact import Partition
from components.core.clock import midnight
from components.core.schemas import events_schema
from components.validate.judge import Judge, Outcome, check_agreement
from components.validate.rules import Mask, Rule, reasons_of_rows

DERIVED = ("has_user_or_session", "hour_of_day", "is_in_stretch", "is_product", "is_unknown_item", "is_quarantined")


def quarantine_schema(columns: Iterable[str]) -> pa.Schema:
    """Events as given, with ratings where they are among the columns, and why they were put aside."""
    more = (pa.field("day", pa.date32()), pa.field("reason", pa.string(), nullable=False))
    return pa.schema([*events_schema(columns), *more])


QUARANTINE = quarantine_schema(())


class CatalogIndex:
    """What the catalogue says of an item: known or not, a product or not."""

    def __init__(self, catalog: pa.Table) -> None:
        self.has_items = catalog.num_rows > 0
        self._items = pd.Index(catalog["item_id"].to_pandas())
        # Absent means yes; ingest marks only what is none.
        marks = pc.map_lookup(catalog["attributes"], pa.scalar("is_product"), "first").to_pandas()
        self._is_product: Mask = (marks != "false").to_numpy()

    def is_product(self) -> Mask:
        """(items,) of the catalogue's own rows."""
        return self._is_product

    def flags(self, items: pa.ChunkedArray) -> tuple[Mask, Mask]:
        """item_id (N,) -> (is unknown (N,), is a product (N,)); without a catalogue nothing is unknown."""
        if not self.has_items:
            return np.zeros(len(items), bool), np.ones(len(items), bool)
        position = self._items.get_indexer(items.to_pandas())
        unknown = position < 0
        return unknown, unknown | self._is_product[position]


class DayRecord(BaseModel):
    """A day in results.json; a later run with the same `key` takes it over without looking at the rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: date
    key: str
    source: int
    duplicates: int
    rejected: int
    rows: int
    kept: int
    quarantined: int
    unknown_items: int
    median_price: float | None
    last_event: str | None
    reasons: dict[str, int]
    """Rows a reason; a row with two reasons counts in both."""
    shares: dict[str, float]
    """Observed value of each share that is bounded."""
    failed: dict[str, dict[str, Any]]
    """Expectations that did not hold on this day: unexpected rows, observed value or error."""
    is_outlying: bool
    """The day lies beyond a gap: none of its rows is kept."""
    partition: Partition | None
    """None where no row is kept."""


@dataclass(frozen=True)
class DayFacts:
    """What is looked at every day, for the key and for the comparison with other days."""

    median_price: float | None
    unknown_items: int
    flags_sha256: str


def day_facts(table: pa.Table, catalog: CatalogIndex) -> DayFacts:
    """`table` needs `item_id` and `price`. The flags are in the key: a new catalogue may know other items."""
    unknown, is_product = catalog.flags(table["item_id"])
    prices = table["price"].to_numpy()
    prices = prices[~np.isnan(prices)]
    digest = hashlib.sha256(np.packbits(np.concatenate([unknown, is_product])).tobytes()).hexdigest()
    return DayFacts(float(np.median(prices)) if len(prices) else None, int(unknown.sum()), digest)


def outlying_days(rows: Mapping[date, int], *, max_gap_days: float) -> set[date]:
    """Rows by day, in order -> the days outside the stretch with the most rows; stretches end at a longer gap."""
    stretches: list[list[date]] = []
    for day in rows:
        if stretches and (day - stretches[-1][-1]).days - 1 < max_gap_days:
            stretches[-1].append(day)
        else:
            stretches.append([day])
    main = max(stretches, key=lambda days: sum(rows[day] for day in days))
    return set(rows) - set(main)


def day_frame(
    table: pa.Table, day: date, catalog: CatalogIndex, rules: tuple[Rule, ...], *, is_outlying: bool = False
) -> tuple[Any, list[str | None]]:
    """EVENTS -> (the frame that is judged: its columns and DERIVED; each row's reasons or None)."""
    frame = table.to_pandas()
    unknown, is_product = catalog.flags(table["item_id"])
    frame["has_user_or_session"] = (frame["user_id"].notna() | frame["session_id"].notna()).to_numpy()
    start = pd.Timestamp(midnight(day)).tz_convert("UTC")
    frame["hour_of_day"] = (frame["timestamp"] - start).dt.total_seconds() / 3600
    frame["is_in_stretch"] = not is_outlying
    frame["is_product"] = is_product
    frame["is_unknown_item"] = unknown.astype(np.float64)
    reasons = reasons_of_rows(rules, frame)
    # A day beyond a gap is bad as a whole, and judged as a share of the log.
    bad = [reason is not None and not is_outlying for reason in reasons]
    frame["is_quarantined"] = np.array(bad, dtype=np.float64)
    return frame, reasons


def judge_day(judge: Judge, suite: Any, rules: tuple[Rule, ...], frame: pd.DataFrame) -> dict[str, Outcome]:
    outcomes = judge.run(suite, frame)
    check_agreement(rules, frame, outcomes)
    return outcomes


def split(table: pa.Table, day: date, reasons: list[str | None]) -> tuple[pa.Table, pa.Table]:
    """(good rows (EVENTS), bad rows (QUARANTINE))."""
    is_good = pa.array([reason is None for reason in reasons], pa.bool_())
    bad = table.filter(pa.array([reason is not None for reason in reasons], pa.bool_()))
    bad = bad.append_column(QUARANTINE.field("day"), pa.array([day] * bad.num_rows, pa.date32()))
    bad = bad.append_column(
        QUARANTINE.field("reason"), pa.array([reason for reason in reasons if reason is not None], pa.string())
    )
    return table.filter(is_good), bad


def count_reasons(reasons: list[str | None]) -> dict[str, int]:
    counted = Counter(single for joined in reasons if joined is not None for single in joined.split("; "))
    return dict(sorted(counted.items()))
