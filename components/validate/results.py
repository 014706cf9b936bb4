"""results.json: what every check found, and the days, in a form that the page shows and the next run takes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.validate.checks import Check, Range, Severity
from components.validate.day import DayRecord
from components.validate.judge import Outcome
from components.validate.rules import Rule

Status = Literal["passed", "quarantined", "noted", "warning", "failed"]
_WHEN_BROKEN: Mapping[Severity, Status] = {"critical": "failed", "warning": "warning", "info": "noted"}


class CheckResult(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    name: str
    sentence: str
    status: Status
    """quarantined: rows broke a rule and were put aside; noted: an 'info' check failed; failed: stops the run."""
    detail: str
    """What was found, in words; empty when passed."""
    judged: int
    """Tables (days, or 1) that it was judged on."""
    failed_on: Sequence[date] = ()
    """The days on which it did not hold."""
    rows: int = 0
    """Rows that broke it."""


class Results(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: datetime
    rows: Mapping[str, int]
    """source = kept + duplicates + quarantined; quarantined includes ingest's `rejected`."""
    reasons: Mapping[str, int]
    non_products: int
    """Catalogue items that are no products and were taken out."""
    checks: Sequence[CheckResult]
    days: Sequence[DayRecord]


def day_results(days: Sequence[DayRecord], rules: Sequence[Rule], checks: Sequence[Check]) -> list[CheckResult]:
    """The rules and checks that every day's partition went through, over all days."""
    found = []
    for rule in rules:
        failures = _failures(days, rule.name)
        rows = sum(outcome.unexpected or 0 for outcome in failures.values())
        error = next((outcome.error for outcome in failures.values() if outcome.error), None)
        found.append(
            CheckResult(
                table="events",
                name=rule.name,
                sentence=rule.sentence,
                status="failed" if error else "quarantined" if failures else "passed",
                detail=error or (f"{rows:,} rows on {len(failures):,} days" if failures else ""),
                judged=len(days),
                failed_on=list(failures),
                rows=rows,
            )
        )
    for check in checks:
        failures = _failures(days, check.name)
        shares = {record.day: record.shares[check.name] for record in days if check.name in record.shares}
        worst = max(failures or shares, key=lambda day: shares.get(day, 0.0), default=None)
        outcome = failures[worst] if failures and worst is not None else Outcome(success=True)
        seen = outcome.error or (f"{shares[worst]:.1%}" if worst in shares else "it differs" if failures else "")
        found.append(
            CheckResult(
                table="events",
                name=check.name,
                sentence=check.sentence,
                status=_status(check, outcome),
                detail=(
                    f"{len(failures):,} days, worst {worst}: {seen}" if failures else f"at most {seen}" if seen else ""
                ),
                judged=len(days),
                failed_on=list(failures),
            )
        )
    return found


def _failures(days: Sequence[DayRecord], name: str) -> dict[date, Outcome]:
    return {record.day: Outcome(success=False, **record.failed[name]) for record in days if name in record.failed}


def table_results(
    table: str, checks: Sequence[Check], outcomes: Mapping[str, Outcome], frame: pd.DataFrame
) -> list[CheckResult]:
    """Checks of one table; where `frame` has a column `day`, its rows are days."""
    found = []
    for check in checks:
        outcome = outcomes[check.name]
        failed_on = []
        if isinstance(check, Range) and "day" in frame and not outcome.success:
            failed_on = list(frame["day"][check.outside(frame).index])
        found.append(
            CheckResult(
                table=table,
                name=check.name,
                sentence=check.sentence,
                status=_status(check, outcome),
                detail=_detail(check, outcome, frame),
                judged=len(frame) if "day" in frame else 1,
                failed_on=failed_on,
                rows=outcome.unexpected or 0,
            )
        )
    return found


def _detail(check: Check, outcome: Outcome, frame: pd.DataFrame) -> str:
    if outcome.error is not None:
        return outcome.error
    if isinstance(check, Range):
        values = frame[check.column].dropna()
        if "day" in frame and not outcome.success:
            outside = check.outside(frame)
            days = frame["day"][outside.index]
            shown = [f"{day}: {_number(value)}" for day, value in zip(days, outside, strict=True)]
            return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
        if len(frame) == 1 and len(values):
            return f"it is {_number(values.iloc[0])}"
        if "day" in frame and len(values):
            return f"{_number(values.min())} to {_number(values.max())}"
    if outcome.success:
        return ""
    return f"{outcome.unexpected:,} of {len(frame):,} rows" if outcome.unexpected else "it differs"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _status(check: Check, outcome: Outcome) -> Status:
    # What cannot be evaluated is never taken for good.
    if outcome.error is not None:
        return "failed"
    if outcome.success:
        return "passed"
    return _WHEN_BROKEN[check.severity]
