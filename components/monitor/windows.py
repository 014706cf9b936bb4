"""The days since the bundle's cutoff, judged one after the other against the reference.

A window is a whole day: what a weekday usually adds is taken off, as the reference's own days show it.
Nothing is remembered between runs: equal logs give equal verdicts, whatever was run when.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from components.measures.drift import Floats
from components.monitor.measures import WINDOW_MEASURES, Measure, Reading
from components.monitor.tally import Tally, add
from components.monitor.thresholds import Expectation, Judged, Limits, chance_spread, from_scale, judge, to_scale

Days = Sequence[tuple[date, Tally]]
WEEK = 7
# Share of a day's events that may come after the last hour of a day that counts as whole.
MOST_AFTER = 0.02


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What training saw."""

    total: Tally
    values: Mapping[str, float]
    """Of all days together, by measure."""
    offsets: Mapping[str, Floats]
    """(7,) by measure: what a Monday, Tuesday … adds on the measure's scale of judging."""
    first: date
    last: date
    num_days: int

    @classmethod
    def of(cls, days: Days, measures: Sequence[Measure] = WINDOW_MEASURES) -> Reference:
        """From the days of training, oldest first; at least one."""
        total = add(tally for _, tally in days)
        values, offsets = {}, {}
        for measure in measures:
            assert measure.read is not None
            readings = [(day, measure.read(tally, total)) for day, tally in days]
            offsets[measure.name] = weekday_offsets(measure, readings)
            # A day's level, not the sum's: a window is a day, and so are its counts and distances.
            scaled = [to_scale(measure.scale, one.value) for _, one in readings if math.isfinite(one.value)]
            values[measure.name] = from_scale(measure.scale, float(np.mean(scaled))) if scaled else math.nan
        return cls(total=total, values=values, offsets=offsets, first=days[0][0], last=days[-1][0], num_days=len(days))


@dataclass(frozen=True, kw_only=True)
class Window:
    """A day and what became of each measure."""

    day: date
    judged: Mapping[str, Judged]

    @property
    def alarms(self) -> list[str]:
        return [name for name, one in self.judged.items() if one.cause is not None]

    @property
    def is_learning(self) -> bool:
        """Whether there were too few quiet windows to judge by."""
        return all(not math.isfinite(one.deviation) for one in self.judged.values())


def judge_windows(
    days: Days,
    reference: Reference,
    limits: Limits,
    *,
    bounds: Mapping[str, float],
    measures: Sequence[Measure] = WINDOW_MEASURES,
) -> list[Window]:
    """Each day judged by the quiet ones before it, oldest first. `bounds` take the place of the declared ones."""
    expectations = {measure.name: Expectation(limits) for measure in measures}
    windows: list[Window] = []
    for day, tally in days:
        judged, levelled = {}, {}
        for measure in measures:
            assert measure.read is not None
            reading = measure.read(tally, reference.total)
            offset = float(reference.offsets[measure.name][day.weekday()])
            judged[measure.name] = judge(
                measure,
                reading,
                expectation=expectations[measure.name],
                before=windows[-1].judged[measure.name] if windows else None,
                reference=reference.values[measure.name],
                offset=offset,
                limits=limits,
                bound=bounds.get(measure.name, measure.bound),
            )
            levelled[measure.name] = to_scale(measure.scale, reading.value) - offset
        windows.append(Window(day=day, judged=judged))
        for name, value in levelled.items():
            if judged[name].cause is not None or not math.isfinite(value):
                expectations[name].skip()
            else:
                expectations[name].learn(value)
    return windows


def is_whole(tally: Tally, reference: Reference) -> bool:
    """Whether the newest day has come to its end: a log that ends at noon has not had its evening yet.

    False where training saw more than a fiftieth of its events after the day's last hour with any.
    """
    hours = tally["hour"]
    if not hours.any():
        return True
    usual = reference.total["hour"]
    later = usual[int(np.flatnonzero(hours)[-1]) + 1 :].sum()
    return bool(later <= MOST_AFTER * usual.sum())


def weekday_offsets(measure: Measure, readings: Sequence[tuple[date, Reading]]) -> Floats:
    """(7,) mean deviation of each weekday, drawn towards 0 by as much as it may be chance (James and Stein, 1961)."""
    kept = [(day, one) for day, one in readings if math.isfinite(one.value)]
    if len(kept) < 2 * WEEK:
        return np.zeros(WEEK)  # less than two of each: not a habit
    weekday = np.array([day.weekday() for day, _ in kept])
    value = np.array([to_scale(measure.scale, one.value) for _, one in kept])
    value = value - value.mean()
    number = np.bincount(weekday, minlength=WEEK)
    mean = np.bincount(weekday, weights=value, minlength=WEEK) / np.maximum(1, number)
    inside = float(((value - mean[weekday]) ** 2).sum()) / max(1, len(kept) - WEEK)
    inside = max(inside, chance_spread(measure.scale, min(one.count for _, one in kept)) ** 2)
    between = float((number * mean**2).sum()) / (WEEK - 1)
    offsets: Floats = mean * max(0.0, 1 - inside / between) if between else mean
    return offsets
