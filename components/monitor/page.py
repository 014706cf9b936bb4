"""drift.html: what has drifted, in one file that loads nothing and names no user. Every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2

from components.monitor.measures import MEASURES, Measure
from components.monitor.thresholds import Judged
from components.monitor.windows import Reference, Window

WIDTH, HEIGHT, MARGIN = 260, 46, 4
VERDICTS = {
    "drift": "Something has drifted",
    "quiet": "Quiet: every measure is within its limits",
    "learning": "Too few quiet days yet to learn limits from: bounds by hand alone",
}
CAUSES = {"window": "beyond its limit", "lasting": "lasting", "bound": "beyond the bound by hand"}


def render_page(
    *,
    project: str,
    as_of: datetime,
    statistics: Mapping[str, Any],
    windows: Sequence[Window],
    reference: Reference,
    run: Mapping[str, Judged],
    then: Mapping[str, float],
    absent: Mapping[str, str],
) -> str:
    """The newest window's measures by family, each with its line over the windows, and those of the run."""
    newest = windows[-1].judged if windows else {}
    families: dict[str, list[dict[str, Any]]] = {}
    for measure in MEASURES:
        one = newest.get(measure.name) or run.get(measure.name)
        series = [window.judged[measure.name] for window in windows] if measure.of == "window" else []
        usual = reference.values.get(measure.name, then.get(measure.name, math.nan))
        usual = math.nan if measure.in_sample else usual
        families.setdefault(measure.family, []).append(_row(measure, one, series, usual, absent.get(measure.name)))
    return _template().render(
        project=project,
        as_of=as_of.strftime("%Y-%m-%d %H:%M UTC"),
        statistics=statistics,
        verdict=VERDICTS[statistics["verdict"]],
        families=families,
        first=reference.first,
        last=reference.last,
        days=[
            {"day": window.day.isoformat(), "alarms": window.alarms, "learning": window.is_learning}
            for window in windows
        ],
        width=WIDTH,
        height=HEIGHT,
    )


def _row(
    measure: Measure, one: Judged | None, series: Sequence[Judged], usual: float, absent: str | None
) -> dict[str, Any]:
    return {
        "name": measure.name,
        "help": measure.help,
        "of": measure.of,
        "value": _figure(one.value) if one else "–",
        "usual": _figure(usual),
        "limits": _limits(one),
        "state": "alarm" if one and one.cause else "quiet" if one else "absent",
        "cause": CAUSES[one.cause] if one and one.cause else absent or "",
        "chart": _chart(series),
    }


def _limits(one: Judged | None) -> str:
    if one is None:
        return "–"
    if one.lower is None or not math.isfinite(one.lower):
        return f"up to {_figure(one.upper)}"
    return f"{_figure(one.lower)} to {_figure(one.upper)}"


def _chart(series: Sequence[Judged]) -> dict[str, Any] | None:
    """Values as a line, limits as a band, alarms as dots, within WIDTH x HEIGHT."""
    values = [one.value for one in series if math.isfinite(one.value)]
    if len(values) < 2:
        return None
    judged = [one for one in series if math.isfinite(one.deviation)]
    edges = [edge for one in judged for edge in (one.lower, one.upper) if edge is not None and math.isfinite(edge)]
    low, high = min([*values, *edges]), max([*values, *edges])
    span = (high - low) or 1.0

    def y(value: float) -> float:
        return round(HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2 * MARGIN), 1)

    step = (WIDTH - 2 * MARGIN) / (len(series) - 1)
    points = [(round(MARGIN + place * step, 1), one) for place, one in enumerate(series)]
    upper = [(x, y(one.upper)) for x, one in points if one in judged and one.upper is not None]
    lower = [(x, y(low if one.lower is None else one.lower)) for x, one in points if one in judged]
    return {
        "line": " ".join(f"{x},{y(one.value)}" for x, one in points if math.isfinite(one.value)),
        "band": " ".join(f"{x},{level}" for x, level in [*upper, *reversed(lower)]),
        "alarms": [(x, y(one.value)) for x, one in points if one.cause and math.isfinite(one.value)],
    }


def _figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@cache
def _template() -> jinja2.Template:
    text = resources.files("components.monitor").joinpath("drift.html").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
