"""Tests of a running experiment that may be looked at as often as one likes: the chance that they ever raise a false
alarm, over all looks together, is at most alpha.

`exceeds` judges one share (errors, slow answers) and is exact: a mixture over Bernoulli likelihood ratios is a
martingale, which by Ville's inequality ever reaches 1/alpha with probability alpha at most (Robbins 1970, "Statistical
methods related to the law of the iterated logarithm"; Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences").

`compare_rates` judges the difference of two click-through rates by the normal-mixture confidence sequence, which is the
mixture SPRT of Johari, Koomen, Pekelis and Walsh ("Always valid inference", Operations Research 70, 2022) with an
estimated variance (Waudby-Smith et al. 2024, "Time-uniform central limit theory and asymptotic confidence sequences",
Annals of Statistics 52). People differ and come back, so lists are not independent: the variance is taken over groups
of users, which are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betaln

# Jeffreys' prior of a share, cut off at the limit.
PRIOR = 0.5


@dataclass(frozen=True, kw_only=True)
class RateDifference:
    """Difference of two rates, first minus second, with its confidence sequence at this look."""

    first: float
    second: float
    lower: float
    upper: float

    @property
    def difference(self) -> float:
        return self.first - self.second


def log_evidence(events: int, trials: int, *, limit: float) -> float:
    """log e-value of `events` in `trials` against 'the share is at most `limit`'. At most 0 events say nothing bad."""
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events in {trials} trials cannot be.")
    if limit >= 1 or events == 0:
        return -math.inf if events == 0 and trials else 0.0
    if limit <= 0:
        return math.inf
    posterior = betaincc(PRIOR + events, PRIOR + trials - events, limit)
    if posterior <= 0:
        return -math.inf
    return float(
        betaln(PRIOR + events, PRIOR + trials - events)
        + math.log(posterior)
        - betaln(PRIOR, PRIOR)
        - math.log(betaincc(PRIOR, PRIOR, limit))
        - events * math.log(limit)
        - (trials - events) * math.log1p(-limit)
    )


def exceeds(events: int, trials: int, *, limit: float, alpha: float) -> bool:
    """Whether the share behind `events` of `trials` is above `limit`, at any number of looks."""
    return log_evidence(events, trials, limit=limit) >= math.log(1 / alpha)


def compare_rates(
    first: tuple[Sequence[int], Sequence[int]],
    second: tuple[Sequence[int], Sequence[int]],
    *,
    alpha: float,
    relative_effect: float,
) -> RateDifference:
    """Two arms as (trials, events) of each group of users -> their difference and its confidence sequence.

    The sequence covers the true difference at all looks together with probability 1 - alpha. It is narrowest about
    where a difference of `relative_effect` times the common rate shows. Without a trial in both arms it is endless.
    """
    n_first, n_second = float(np.sum(first[0])), float(np.sum(second[0]))
    if not (n_first and n_second):
        return RateDifference(first=math.nan, second=math.nan, lower=-math.inf, upper=math.inf)
    pooled = (float(np.sum(first[1])) + float(np.sum(second[1]))) / (n_first + n_second)
    rate_first, variance_first = _rate(first, pooled)
    rate_second, variance_second = _rate(second, pooled)
    difference, variance = rate_first - rate_second, variance_first + variance_second
    if not (variance > 0 and pooled > 0):
        return RateDifference(first=rate_first, second=rate_second, lower=-math.inf, upper=math.inf)
    # What the data say of the difference, in units of the effect that is looked for.
    information = (relative_effect * pooled) ** 2 / variance
    radius = math.sqrt(
        variance * (1 + information) / information * 2 * (0.5 * math.log1p(information) + math.log(1 / alpha))
    )
    return RateDifference(first=rate_first, second=rate_second, lower=difference - radius, upper=difference + radius)


def _rate(arm: tuple[Sequence[int], Sequence[int]], pooled: float) -> tuple[float, float]:
    """(rate, variance of the rate) of an arm, its groups being independent; never less than a Poisson count has."""
    trials: npt.NDArray[np.float64] = np.asarray(arm[0], dtype=np.float64)
    events: npt.NDArray[np.float64] = np.asarray(arm[1], dtype=np.float64)
    total = trials.sum()
    rate = float(events.sum() / total)
    groups = int((trials > 0).sum())
    spread = float(np.square(events - rate * trials).sum()) * groups / max(groups - 1, 1) / total**2
    # A rate counts clicks on a list, of which there may be several: no less than a Poisson count's spread is believed.
    independent = pooled / total
    return rate, max(spread, float(independent))
