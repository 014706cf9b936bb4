"""quality.html: what a person needs to see of a log's quality, in one file that loads nothing from outside.

No user can be recognised: examples name users and sessions by a number that means nothing outside the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from components.validate.day import DayRecord
from components.validate.results import CheckResult, Results

# Of a value in an example row.
SHOWN_CHARACTERS = 200

TABLES = {"events": "Each day's events", "days": "The days in a row", "log": "The log", "catalogue": "The catalogue"}
_CHART_WIDTH, _CHART_HEIGHT = 1080, 190


def render_page(
    results: Results,
    *,
    quarantine: pa.Table,
    rejects: pa.Table,
    ingest: Mapping[str, Any],
    project: str,
    example_rows: int,
) -> str:
    """`quarantine` (QUARANTINE), `rejects` (ingest's rejects.parquet), `ingest`: statistics of the events artifact."""
    names = _Pseudonyms()
    # Days beyond a gap are in the table of reasons; a chart that reaches to them would show nothing else.
    days = [day for day in results.days if not day.is_outlying]
    return _template().render(
        project=project,
        as_of=results.as_of.strftime("%Y-%m-%d %H:%M UTC"),
        profile=ingest["profile"],
        rows=results.rows,
        shares=_shares(results.rows),
        first_day=days[0].day,
        last_day=days[-1].day,
        num_days=len(days),
        verdict=_verdict(results.checks),
        tables=[
            {"title": title, "checks": [check for check in results.checks if check.table == table]}
            for table, title in TABLES.items()
            if any(check.table == table for check in results.checks)
        ],
        chart=_chart(days),
        reasons=_reasons(results, quarantine, example_rows, names),
        rejects=_rejects(rejects, ingest, example_rows),
        defects=ingest["defects"],
        catalog=ingest["catalog"],
        non_products=results.non_products,
        unknown_items=sum(day.unknown_items for day in results.days),
        ignored=ingest["ignored_columns"],
        left_out=ingest["left_out"],
    )


class _Pseudonyms:
    """'user 1' for the first user shown, and so on: the order of appearance says nothing about the id."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, int]] = {"user": {}, "session": {}}

    def name(self, kind: str, value: str | None) -> str:
        if value is None:
            return "–"
        return f"{kind} {self._seen[kind].setdefault(value, len(self._seen[kind]) + 1)}"


def _verdict(checks: Iterable[CheckResult]) -> dict[str, str]:
    statuses = [check.status for check in checks]
    if "failed" in statuses:
        return {"status": "failed", "text": "This log was refused: a table-level check failed."}
    if "warning" in statuses:
        return {"status": "warning", "text": "Good enough to go on; something wants a look."}
    if "quarantined" in statuses:
        return {"status": "passed", "text": "Good: single bad rows were put aside."}
    return {"status": "passed", "text": "Good: every check passed."}


def _shares(rows: Mapping[str, int]) -> list[dict[str, Any]]:
    source = max(rows["source"], 1)
    return [
        {"name": name, "rows": rows[name], "percent": 100 * rows[name] / source}
        for name in ("kept", "duplicates", "quarantined")
    ]


def _chart(days: Sequence[DayRecord]) -> dict[str, Any]:
    """Stacked bars, one a day of the calendar; a day without events is a gap."""
    first = days[0].day
    span = (days[-1].day - first).days + 1
    step = _CHART_WIDTH / span
    top = _round_up(max(max(day.source, day.rows) for day in days))
    bars = []
    for record in days:
        bad = record.quarantined + record.rejected
        parts, base = [], 0
        for kind, count in (("kept", record.kept), ("duplicates", record.duplicates), ("quarantined", bad)):
            if count:
                height = count / top * _CHART_HEIGHT
                parts.append({"kind": kind, "y": _CHART_HEIGHT - base / top * _CHART_HEIGHT - height, "h": height})
            base += count
        bars.append(
            {
                "x": (record.day - first).days * step,
                "parts": parts,
                "text": f"{record.day:%a %Y-%m-%d}: {record.kept:,} kept, {record.duplicates:,} duplicates, "
                f"{bad:,} quarantined",
            }
        )
    return {
        "width": _CHART_WIDTH,
        "height": _CHART_HEIGHT,
        "bar": max(step * 0.84, 0.8),
        "bars": bars,
        "lines": [
            {"y": _CHART_HEIGHT * (1 - share), "text": f"{top * share:,.0f}"} for share in (0.0, 0.25, 0.5, 0.75, 1.0)
        ],
        "months": _month_marks(first, span, step),
    }


def _month_marks(first: date, span: int, step: float) -> list[dict[str, Any]]:
    if span <= 45:
        days = range(0, span, max(1, span // 8))
        return [{"x": n * step, "text": f"{date.fromordinal(first.toordinal() + n):%d %b}"} for n in days]
    # A label needs some room before the chart's right edge.
    starts = [n for n in range(span - 20) if date.fromordinal(first.toordinal() + n).day == 1]
    every = max(1, len(starts) // 12)
    return [{"x": n * step, "text": f"{date.fromordinal(first.toordinal() + n):%b %Y}"} for n in starts[::every]]


def _round_up(value: int) -> int:
    """The next 'round' number: 7110 -> 8000."""
    magnitude = int("1" + "0" * (len(str(max(value, 1))) - 1))
    return next(factor * magnitude for factor in (1, 2, 4, 6, 8, 10) if factor * magnitude >= value)


def _reasons(results: Results, quarantine: pa.Table, example_rows: int, names: _Pseudonyms) -> list[dict[str, Any]]:
    """Reasons by how many rows have them, with the first rows of each as examples."""
    most = max(results.reasons.values(), default=1)
    numbered = quarantine.append_column("number", pa.array(range(quarantine.num_rows), pa.int64()))
    found = []
    for reason, count in sorted(results.reasons.items(), key=lambda item: (-item[1], item[0])):
        is_it = pc.match_substring(quarantine["reason"], reason)
        rows = numbered.filter(is_it).slice(0, example_rows).to_pylist()
        found.append(
            {
                "reason": reason,
                "rows": count,
                "percent": 100 * count / most,
                "share": count / max(results.rows["source"], 1),
                "examples": [
                    {
                        **row,
                        "timestamp": row["timestamp"].strftime("%Y-%m-%d %H:%M:%S"),
                        "user": names.name("user", row["user_id"]),
                        "session": names.name("session", row["session_id"]),
                    }
                    for row in rows
                ],
            }
        )
    return found


def _rejects(rejects: pa.Table, ingest: Mapping[str, Any], example_rows: int) -> list[dict[str, Any]]:
    """What could not be cast; of a row only those columns are shown that say nothing of a user."""
    public = set(ingest["public_columns"])
    found = []
    for reason, count in ingest["rejected_by_reason"].items():
        rows = rejects.filter(pc.equal(rejects["reason"], reason)).slice(0, example_rows)["row"].to_pylist()
        found.append({"reason": reason, "rows": count, "examples": [_shown(row, public) for row in rows]})
    return found


def _shown(row: str | None, public: set[str]) -> str:
    try:
        values = json.loads(row or "")
    except (json.JSONDecodeError, RecursionError):
        return "(not shown: a line that cannot be taken apart may name a user)"
    if not isinstance(values, dict):
        return "(not shown: no JSON object)"
    return ", ".join(f"{name} = {str(value)[:SHOWN_CHARACTERS]}" for name, value in values.items() if name in public)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.10g}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["thousands"] = lambda value: f"{value:,}"
    environment.filters["number"] = _number
    return environment.from_string((Path(__file__).parent / "quality.html").read_text(encoding="utf-8"))
