"""What must hold of a single event. A row that breaks a rule goes to quarantine with the rule's reason.

Each rule is declared once and used twice: `expectation` is what Great Expectations judges the day by, `reasons` finds
the rows. `judge.py` asserts that both count the same rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.core.sections import ValidateSettings

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    column: str
    sentence: str
    """What holds, as the quality page says it."""

    @property
    def name(self) -> str:
        return f"{self.column}: {type(self).__name__}"

    @abstractmethod
    def expectation(self, gxe: Any) -> Any:
        """The Great Expectations object; `gxe` is `great_expectations.expectations`, which is slow to import."""

    @abstractmethod
    def reasons(self, frame: pd.DataFrame) -> Mapping[str, Mask]:
        """Reason -> rows to quarantine for it (N,). No row has two reasons of one rule."""

    def unexpected(self, frame: pd.DataFrame) -> int:
        """How many rows Great Expectations must find unexpected."""
        return sum(int(mask.sum()) for mask in self.reasons(frame).values())


@dataclass(frozen=True, kw_only=True)
class Present(Rule):
    def expectation(self, gxe: Any) -> Any:
        return gxe.ExpectColumnValuesToNotBeNull(column=self.column, severity="warning", meta={"check": self.name})

    def reasons(self, frame: pd.DataFrame) -> Mapping[str, Mask]:
        return {f"no {self.column}": frame[self.column].isna().to_numpy()}


@dataclass(frozen=True, kw_only=True)
class Unique(Rule):
    def expectation(self, gxe: Any) -> Any:
        return gxe.ExpectColumnValuesToBeUnique(column=self.column, severity="warning", meta={"check": self.name})

    def reasons(self, frame: pd.DataFrame) -> Mapping[str, Mask]:
        return {f"{self.column} is repeated": self._repeated(frame, keep="first")}

    def unexpected(self, frame: pd.DataFrame) -> int:
        # Great Expectations counts every copy; the first one stays.
        return int(self._repeated(frame, keep=False).sum())

    def _repeated(self, frame: pd.DataFrame, *, keep: Any) -> Mask:
        values = frame[self.column]
        return (values.notna() & values.duplicated(keep=keep)).to_numpy()


@dataclass(frozen=True, kw_only=True)
class OneOf(Rule):
    values: tuple[Any, ...]
    reason: str

    def expectation(self, gxe: Any) -> Any:
        return gxe.ExpectColumnValuesToBeInSet(
            column=self.column, value_set=list(self.values), severity="warning", meta={"check": self.name}
        )

    def reasons(self, frame: pd.DataFrame) -> Mapping[str, Mask]:
        values = frame[self.column]
        return {self.reason: (values.notna() & ~values.isin(self.values)).to_numpy()}


@dataclass(frozen=True, kw_only=True)
class Within(Rule):
    """A value between two ends, each of which may itself be within; a null is within."""

    low: float
    high: float
    strict_low: bool = False
    strict_high: bool = False
    low_reason: str
    high_reason: str

    def expectation(self, gxe: Any) -> Any:
        return gxe.ExpectColumnValuesToBeBetween(
            column=self.column,
            min_value=self.low,
            max_value=self.high,
            strict_min=self.strict_low,
            strict_max=self.strict_high,
            severity="warning",
            meta={"check": self.name},
        )

    def reasons(self, frame: pd.DataFrame) -> Mapping[str, Mask]:
        values = frame[self.column].to_numpy()
        return {
            self.low_reason: values <= self.low if self.strict_low else values < self.low,
            self.high_reason: values >= self.high if self.strict_high else values > self.high,
        }


def event_rules(settings: ValidateSettings, *, has_ratings: bool = False) -> tuple[Rule, ...]:
    """The rules of an event row, over the columns of `day.day_frame`; of ratings where the table has them."""
    low, high = settings.min_rating, settings.max_rating
    of_ratings = Within(
        column="rating",
        low=low,
        high=high,
        sentence=f"The rating, where given, is {low:g} to {high:g}",
        low_reason=f"rating is under {low:g}",
        high_reason=f"rating is over {high:g}",
    )
    return (
        *((of_ratings,) if has_ratings else ()),
        Present(column="event_id", sentence="Every event has an id"),
        Present(column="item_id", sentence="Every event names an item"),
        Present(column="event_type", sentence="Every event has a kind"),
        Present(column="timestamp", sentence="Every event has a time"),
        OneOf(
            column="has_user_or_session",
            values=(True,),
            sentence="Every event has a user or a session",
            reason="neither user_id nor session_id",
        ),
        Unique(column="event_id", sentence="No event_id stands twice in a day"),
        OneOf(
            column="event_type",
            values=settings.known_event_types,
            sentence=f"The kind is known ({', '.join(settings.known_event_types)})",
            reason="event_type is not a known kind",
        ),
        Within(
            column="hour_of_day",
            low=0,
            high=24,
            strict_high=True,
            sentence="The time lies in the partition's day",
            low_reason="timestamp lies before its day",
            high_reason="timestamp lies after its day",
        ),
        OneOf(
            column="is_in_stretch",
            values=(True,),
            sentence=f"The time lies in the log's main stretch, where no {settings.max_gap_days:g} days are empty",
            reason="timestamp lies far from the rest of the log",
        ),
        Within(
            column="quantity",
            low=0,
            strict_low=True,
            high=settings.max_quantity,
            sentence=f"The quantity, where given, is above 0 and at most {settings.max_quantity:,g}",
            low_reason="quantity is 0 or less",
            high_reason=f"quantity is over {settings.max_quantity:,g}",
        ),
        Within(
            column="price",
            low=0,
            strict_low=True,
            high=settings.max_price,
            sentence=f"The price, where given, is above 0 and at most {settings.max_price:,g}",
            low_reason="price is 0 or less",
            high_reason=f"price is over {settings.max_price:,g}",
        ),
        OneOf(
            column="is_product",
            values=(True,),
            sentence="The item is a product (no postage, voucher, fuel)",
            reason="item is not a product",
        ),
    )


def reasons_of_rows(rules: tuple[Rule, ...], frame: pd.DataFrame) -> list[str | None]:
    """For each row its reasons, joined by '; ', or None: the row is good."""
    reasons: list[str | None] = [None] * len(frame)
    for rule in rules:
        for reason, mask in rule.reasons(frame).items():
            for row in np.flatnonzero(mask):
                before = reasons[row]
                reasons[row] = reason if before is None else f"{before}; {reason}"
    return reasons
