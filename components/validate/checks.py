"""What must hold of a whole table: a day's partition, the days in a row, the log, the catalogue.

A failed `critical` check stops the run; `warning` and `info` are reported on the quality page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from components.core.schemas import CATALOG
from components.core.sections import ValidateSettings

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, kw_only=True)
class Check(ABC):
    name: str
    sentence: str
    """What holds, as the quality page says it."""
    severity: Severity

    def expectation(self, gxe: Any) -> Any:
        """The Great Expectations object; `gxe` is `great_expectations.expectations`, which is slow to import."""
        return self._build(gxe, severity=self.severity, meta={"check": self.name})

    @abstractmethod
    def _build(self, gxe: Any, **more: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Columns(Check):
    columns: tuple[str, ...]

    def _build(self, gxe: Any, **more: Any) -> Any:
        return gxe.ExpectTableColumnsToMatchSet(column_set=list(self.columns), exact_match=True, **more)


@dataclass(frozen=True, kw_only=True)
class ShareAtMost(Check):
    """The mean of a 0/1 column."""

    column: str
    high: float

    def _build(self, gxe: Any, **more: Any) -> Any:
        return gxe.ExpectColumnMeanToBeBetween(column=self.column, max_value=self.high, **more)


@dataclass(frozen=True, kw_only=True)
class Range(Check):
    """low <= value <= high; a null is in range."""

    column: str
    low: float | None = None
    high: float | None = None
    strict_low: bool = False

    def _build(self, gxe: Any, **more: Any) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(
            column=self.column, min_value=self.low, max_value=self.high, strict_min=self.strict_low, **more
        )

    def outside(self, frame: pd.DataFrame) -> pd.Series:
        """The values out of range, with their index."""
        values = frame[self.column]
        low = (values <= self.low) if self.strict_low else (values < self.low) if self.low is not None else False
        high = (values > self.high) if self.high is not None else False
        return values[low | high]


@dataclass(frozen=True, kw_only=True)
class Filled(Check):
    column: str
    share: float = 1.0

    def _build(self, gxe: Any, **more: Any) -> Any:
        return gxe.ExpectColumnValuesToNotBeNull(column=self.column, mostly=self.share, **more)


@dataclass(frozen=True, kw_only=True)
class Distinct(Check):
    column: str

    def _build(self, gxe: Any, **more: Any) -> Any:
        return gxe.ExpectColumnValuesToBeUnique(column=self.column, **more)


def day_checks(settings: ValidateSettings, *, columns: tuple[str, ...], has_catalog: bool) -> tuple[Check, ...]:
    """Of each day's partition; `columns` are those of `day.day_frame`."""
    checks: list[Check] = [
        Columns(
            name="columns",
            sentence="A partition has the contract's columns and no other",
            severity="critical",
            columns=columns,
        ),
        ShareAtMost(
            name="quarantined share",
            sentence=f"At most {settings.max_quarantined_share:.0%} of a day's rows are bad",
            severity="critical",
            column="is_quarantined",
            high=settings.max_quarantined_share,
        ),
    ]
    if has_catalog:
        checks.append(
            ShareAtMost(
                name="unknown items",
                sentence=f"At most {settings.max_unknown_item_share:.0%} of a day's rows name an item that the "
                "catalogue lacks (they are kept)",
                severity="critical",
                column="is_unknown_item",
                high=settings.max_unknown_item_share,
            )
        )
    return tuple(checks)


def series_checks(settings: ValidateSettings) -> tuple[Check, ...]:
    """Of the days in a row, a row each: see `series_frame`."""
    past = f"the {settings.recent_days} days before"
    return (
        Range(
            name="rows against the recent past",
            sentence=f"A day has {settings.min_rows_ratio:g} to {settings.max_rows_ratio:g} times the median rows of "
            f"{past}",
            severity="warning",
            column="row_ratio",
            low=settings.min_rows_ratio,
            high=settings.max_rows_ratio,
        ),
        Range(
            name="prices against the recent past",
            sentence=f"A day's median price is {settings.min_price_ratio:g} to {settings.max_price_ratio:g} times "
            f"that of {past}",
            severity="warning",
            column="price_ratio",
            low=settings.min_price_ratio,
            high=settings.max_price_ratio,
        ),
    )


def log_checks(settings: ValidateSettings) -> tuple[Check, ...]:
    """Of the whole log, a table of one row."""
    return (
        Range(
            name="freshness",
            sentence=f"The newest event is before as_of, and at most {settings.max_staleness_days:g} days old",
            severity="critical",
            column="staleness_days",
            low=0,
            high=settings.max_staleness_days,
        ),
        Range(
            name="rejected share",
            sentence=f"At most {settings.max_quarantined_share:.0%} of the source's rows could not be cast",
            severity="critical",
            column="rejected_share",
            high=settings.max_quarantined_share,
        ),
        Range(
            name="one stretch",
            sentence=f"At most {settings.max_outlying_share:.0%} of the rows lie beyond a gap of "
            f"{settings.max_gap_days:g} days or more",
            severity="critical",
            column="outlying_share",
            high=settings.max_outlying_share,
        ),
        Range(
            name="ids across days",
            sentence="No event_id stands on two days",
            severity="warning",
            column="repeated_event_ids",
            high=0,
        ),
    )


def catalog_checks(settings: ValidateSettings) -> tuple[Check, ...]:
    """Of the catalogue, its attributes left out."""
    return (
        Columns(
            name="columns",
            sentence="The catalogue has the contract's columns and no other",
            severity="critical",
            columns=tuple(name for name in CATALOG.names if name != "attributes"),
        ),
        Filled(name="item_id filled", sentence="Every item has an id", severity="critical", column="item_id"),
        Distinct(name="item_id unique", sentence="No item stands twice", severity="critical", column="item_id"),
        Range(
            name="price range",
            sentence=f"An item's price, where given, is above 0 and at most {settings.max_price:,g}",
            severity="warning",
            column="price",
            low=0,
            strict_low=True,
            high=settings.max_price,
        ),
        *(
            Filled(
                name=f"{column} filled",
                sentence=f"At least half of the items have a {column}",
                severity="info",
                column=column,
                share=0.5,
            )
            for column in ("title", "category", "brand")
        ),
    )
