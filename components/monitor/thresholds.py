"""Limits learnt from quiet windows, and the alarms that come of them.

A measure's value is judged on a scale on which chance is about as large everywhere (`Measure.scale`). What the next
window should show is an exponentially weighted mean of the quiet ones before it, whose weight is the one that would
have foretold the last quiet windows best (Brown, Smoothing, Forecasting and Prediction, 1963): near the mean where
windows scatter around a level, near the last value where a bundle grows stale or a season turns. How far off such
forecasts were in the last quiet windows is what chance does.

Two charts look at each deviation, each with half of the false alarms that a window is allowed, divided by the number of
measures and sides (Bonferroni): the single window against its limit (Shewhart), which sees a large drift at once, and
the sum of deviations beyond one standard deviation (CUSUM), which sees a small one that lasts. Its limit comes from
Siegmund's formula for the run length (Sequential Analysis, 1985, ch. 2.6).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from components.measures.drift import Floats
from components.monitor.measures import Measure, Reading, Scale

# A lasting deviation is one of more than this many standard deviations a window.
SLACK = 1.0
# Weights of the newest window that are tried.
WEIGHTS = np.array([0.03, 0.06, 0.12, 0.25, 0.5, 0.8])
NEARLY_BEST = 1.1
# How much more the next window may scatter than the last ones did: the weight was chosen on them, and neighbouring days
# are alike. Set on quiet simulated worlds (benchmarks/drift), other seeds than those that it reports.
SPREAD_MARGIN = 1.2
# The newest quiet windows that stand back from what is expected, so that a small drift is not learnt before it is seen.
GUARD_WINDOWS = 3
# Forecasts from fewer windows than this say nothing of how good forecasts are, nor do fewer errors of them.
FIRST_FORECASTS = 5
FEWEST_ERRORS = 3
# Deviations count no more than this, so that one wild window is no lasting drift.
WILDEST = 3.0

Cause = Literal["window", "lasting", "bound"]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One measure of one window."""

    value: float
    lower: float | None
    """Limits on the measure's own scale; None: none on this side."""
    upper: float | None
    deviation: float = math.nan
    """In standard deviations of quiet windows; nan while there are too few of them."""
    lasting_up: float = 0.0
    lasting_down: float = 0.0
    cause: Cause | None = None
    """Why it alarms; None: it does not."""

    @property
    def nearest_limit(self) -> float | None:
        """The limit that the value is nearest to or beyond; None where it has none."""
        limits = [limit for limit in (self.lower, self.upper) if limit is not None and math.isfinite(limit)]
        return min(limits, key=lambda limit: abs(self.value - limit)) if limits else None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How strictly windows are judged."""

    quiet_windows: int
    min_windows: int
    false_alarm_rate: float
    """Of windows, all measures together."""
    num_measures: int

    def chance(self, measure: Measure) -> float:
        """What one chart of one side of one measure may be wrong in."""
        sides = 2 if measure.is_two_sided else 1
        return self.false_alarm_rate / (2 * self.num_measures * sides)


class Expectation:
    """What quiet windows of one measure let expect of the next, on the scale of judging."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen = 0
        self._level_W = np.zeros(len(WEIGHTS))
        self._errors: deque[Floats] = deque(maxlen=limits.quiet_windows)
        self._newest: deque[float] = deque()
        self._skipped = 0

    def learn(self, value: float) -> None:
        """Take in a quiet window."""
        if self._seen >= FIRST_FORECASTS:
            self._errors.append(value - self._level_W)
        self._newest.append(value)
        self._skipped = 0
        if len(self._newest) <= GUARD_WINDOWS:
            return
        value = self._newest.popleft()
        self._seen += 1
        self._level_W = self._level_W + np.maximum(WEIGHTS, 1 / self._seen) * (value - self._level_W)

    def skip(self) -> None:
        """Pass over a window that was not quiet: what comes after it is less certain."""
        self._skipped += 1

    def next(self) -> tuple[float, float, int] | None:
        """Expected value, standard error, degrees of freedom; None while there are too few quiet windows."""
        enough = self._seen + len(self._newest) >= self._limits.min_windows
        if not enough or len(self._errors) < FEWEST_ERRORS:
            return None
        squares_W = (np.stack(self._errors) ** 2).mean(axis=0)
        # The least weight that does about as well: a lasting drift should not soon be what is expected.
        best = int(np.argmax(squares_W <= NEARLY_BEST * squares_W.min()))
        further = 1 + self._skipped * WEIGHTS[best] ** 2
        return (
            float(self._level_W[best]),
            SPREAD_MARGIN * math.sqrt(squares_W[best] * further),
            max(1, len(self._errors) - 1),
        )


def judge(
    measure: Measure,
    reading: Reading,
    *,
    expectation: Expectation,
    before: Judged | None,
    reference: float,
    offset: float,
    limits: Limits,
    bound: float,
) -> Judged:
    """Judge one window; it is not learnt from yet.

    Args:
        before: the window before, whose lasting deviations go on; after an alarm they begin anew.
        reference: the measure's value in training.
        offset: what this day of the week usually adds, on the scale of judging; expectations are free of it.
    """
    forecast = expectation.next()
    if measure.in_sample:
        reference = from_scale(measure.scale, forecast[0] + offset) if forecast else math.nan
    hand_lower, hand_upper = _by_hand(measure, reference, bound)
    if not math.isfinite(reading.value):
        # Nothing of the kind happened: no figure is no reason to alarm, the volume has its own measure.
        return Judged(value=reading.value, lower=hand_lower, upper=hand_upper)
    outside = reading.value > hand_upper or (hand_lower is not None and reading.value < hand_lower)
    cause: Cause | None = "bound" if outside else None
    if forecast is None:
        return Judged(value=reading.value, lower=hand_lower, upper=hand_upper, cause=cause)
    expected, spread, degrees = forecast
    chance = limits.chance(measure)
    width = single_limit(chance, degrees)
    spread = max(spread, chance_spread(measure.scale, reading.count), measure.least / width)
    deviation = (to_scale(measure.scale, reading.value) - offset - expected) / spread
    # In normal deviates, whose sums the run-length formula is about.
    even = float(np.clip(norm.isf(student_t.sf(deviation, degrees)), -WILDEST - SLACK, WILDEST + SLACK))
    most = cusum_limit(chance)
    up, down = (before.lasting_up, before.lasting_down) if before and before.cause != "lasting" else (0.0, 0.0)
    up, down = max(0.0, up + even - SLACK), max(0.0, down - even - SLACK) if measure.is_two_sided else 0.0
    upper = min(hand_upper, from_scale(measure.scale, expected + offset + width * spread))
    lower = None
    if measure.is_two_sided:
        learnt = from_scale(measure.scale, expected + offset - width * spread)
        lower = learnt if hand_lower is None else max(learnt, hand_lower)
    if cause is None and (deviation > width or (measure.is_two_sided and deviation < -width)):
        cause = "window"
    elif cause is None and max(up, down) > most:
        cause = "lasting"
    return Judged(
        value=reading.value,
        lower=lower,
        upper=upper,
        deviation=float(deviation),
        lasting_up=up,
        lasting_down=down,
        cause=cause,
    )


@cache
def single_limit(chance: float, degrees: int) -> float:
    """What a window of quiet times exceeds, in standard errors, with this chance."""
    return float(student_t.isf(chance, degrees))


@cache
def cusum_limit(chance: float, *, slack: float = SLACK) -> float:
    """Limit of a one-sided CUSUM of standard normal deviates that alarms falsely once in 1 / chance windows.

    Siegmund: run length = (exp(2k(h + 1.166)) - 2k(h + 1.166) - 1) / 2k², solved for h.
    """
    target, reach = 2 * slack**2 / chance, 1.0
    for _ in range(50):
        reach = math.log(target + reach + 1)
    return reach / (2 * slack) - 1.166


def to_scale(scale: Scale, value: float) -> float:
    if scale == "ratio":
        return math.log(max(value, 0.5))
    if scale == "share":
        return math.asin(math.sqrt(min(1.0, max(0.0, value))))
    return math.sqrt(max(0.0, value)) if scale == "divergence" else value


def from_scale(scale: Scale, value: float) -> float:
    if scale == "ratio":
        return math.exp(value)
    if scale == "share":
        return math.sin(min(math.pi / 2, max(0.0, value))) ** 2
    return max(0.0, value) ** 2 if scale == "divergence" else value


def chance_spread(scale: Scale, count: float) -> float:
    """What chance alone does to a figure of `count` observations, so that equal quiet windows are no certainty."""
    count = max(1.0, count)
    return {
        "ratio": 1 / math.sqrt(count),
        "share": 0.5 / math.sqrt(count),
        "divergence": 1 / math.sqrt(2 * count),
        "distance": 0.3 / math.sqrt(count),
        "plain": 0.0,
    }[scale]


def _by_hand(measure: Measure, reference: float, bound: float) -> tuple[float | None, float]:
    if not measure.is_two_sided:
        return None, bound
    if not math.isfinite(reference):
        return None, math.inf
    if measure.scale == "ratio":
        return reference / bound, reference * bound
    if measure.scale == "share":
        return max(0.0, reference - bound), min(1.0, reference + bound)
    return reference - bound, reference + bound
