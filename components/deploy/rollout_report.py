"""A rollout's report: one HTML file that loads nothing, with the challenger's click-through beside the control's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import jinja2

from components.deploy.decision import Finding, Look

if TYPE_CHECKING:
    from components.deploy.rollout_record import RolloutRecord

WIDTH, HEIGHT = 640, 180
# How many looks the chart shows at most: a band per two pixels reads as well as one per pixel.
MOST_BARS = 200


@dataclass(frozen=True)
class Bar:
    """The interval of one look, in the chart's coordinates."""

    x: float
    top: float
    bottom: float
    middle: float
    step: str


def render(record: RolloutRecord) -> str:
    text = resources.files(__package__).joinpath("rollout_report.html").read_text()
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    bars, zero, reach = click_bars(record.looks)
    return page.render(
        record=record,
        last_looks=_last_of_each_step(record.looks),
        bars=bars,
        zero=zero,
        reach=reach,
        width=WIDTH,
        height=HEIGHT,
        figure=figure,
    )


def click_bars(looks: Sequence[Look]) -> tuple[Sequence[Bar], float, float]:
    """(intervals, y of no difference, difference at the chart's upper edge). Wide early intervals are cut off."""
    found = [(look, clicks) for look in looks if (clicks := _clicks(look)) is not None]
    found = found[:: max(1, len(found) // MOST_BARS)]
    if not found:
        return [], HEIGHT / 2, 0.0
    last = [abs(value) for _, clicks in found[-5:] for value in (clicks.lower, clicks.upper) if value is not None]
    reach = max(max(last), 1e-6) * 1.5
    scale = HEIGHT / 2 / reach

    def y(value: float) -> float:
        return HEIGHT / 2 - max(-reach, min(reach, value)) * scale

    bars = []
    for number, (look, clicks) in enumerate(found):
        assert clicks.lower is not None
        assert clicks.upper is not None
        middle = (clicks.lower + clicks.upper) / 2
        x = (number + 0.5) * WIDTH / len(found)
        bars.append(Bar(x, y(clicks.upper), y(clicks.lower), y(middle), look.step))
    return bars, HEIGHT / 2, reach


def figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _clicks(look: Look) -> Finding | None:
    found = next((finding for finding in look.findings if finding.name == "click-through"), None)
    return found if found is not None and found.lower is not None and found.upper is not None else None


def _last_of_each_step(looks: Sequence[Look]) -> Sequence[Look]:
    return list({look.step: look for look in looks}.values())
