"""Tests that may be looked at at any moment: false alarms over all looks together, and what they find."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.measures.sequential import compare_rates, exceeds, log_evidence

GROUPS = 64
LISTS = 8000
ALPHA = 0.05


def alarm(rng: np.random.Generator, *, lift: float, users: int = 400, rate: float = 0.1) -> int | None:
    """Lists an arm at which a drop is called, where people differ in taste and in how often they come; None: never."""

    def arm(mean: float) -> tuple[np.ndarray, np.ndarray]:
        visits = rng.lognormal(0, 1, users)
        taste = rng.beta(10 * mean, 10 * (1 - mean), users)
        user = rng.choice(users, size=LISTS, p=visits / visits.sum())
        return rng.integers(0, GROUPS, users)[user], rng.random(LISTS) < taste[user]

    def counts(arm: tuple[np.ndarray, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
        group, is_click = arm[0][:n], arm[1][:n]
        return np.bincount(group, minlength=GROUPS), np.bincount(group, is_click, minlength=GROUPS)

    first, second = arm(rate * (1 + lift)), arm(rate)
    for n in np.unique(np.geomspace(200, LISTS, 40).astype(int)).tolist():
        found = compare_rates(counts(first, n), counts(second, n), alpha=ALPHA, relative_effect=0.1)
        if found.upper < 0:
            return int(n)
    return None


def test_the_same_click_through_raises_an_alarm_at_most_as_often_as_alpha() -> None:
    rng = np.random.default_rng(7)
    alarms = sum(alarm(rng, lift=0.0) is not None for _ in range(300))
    assert alarms <= ALPHA * 300


def test_several_clicks_a_list_and_looks_from_the_first_dozens_on_raise_no_more_alarms() -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(400):
        group = rng.integers(0, GROUPS, (2, 1000))
        clicks = rng.poisson(rng.gamma(3, 0.5, (2, 1000)))
        for n in range(25, 1000, 25):
            arms = [
                (np.bincount(group[arm, :n], minlength=GROUPS), np.bincount(group[arm, :n], clicks[arm, :n], GROUPS))
                for arm in (0, 1)
            ]
            if compare_rates(arms[0], arms[1], alpha=ALPHA, relative_effect=0.3).upper < 0:
                alarms += 1
                break
    assert alarms <= ALPHA * 400


def test_a_click_through_that_falls_by_half_is_found_nearly_always() -> None:
    rng = np.random.default_rng(8)
    found = [alarm(rng, lift=-0.5, users=3000) for _ in range(60)]
    assert sum(one is not None for one in found) >= 57
    assert np.median([one for one in found if one is not None]) < LISTS / 2


def test_looking_at_a_plain_interval_as_often_would_not_do() -> None:
    """The check above can fail: 1.96 standard errors, looked at 40 times, are far from a chance of one in twenty."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        x = rng.random((2, LISTS)) < 0.1
        n = np.unique(np.geomspace(200, LISTS, 40).astype(int))
        rates = x.cumsum(axis=1)[:, n - 1] / n
        error = np.sqrt((rates * (1 - rates)).sum(axis=0) / n)
        alarms += bool((np.abs(rates[0] - rates[1]) > 1.96 * error).any())
    assert alarms > 2 * ALPHA * 200


def test_a_share_at_its_limit_is_called_too_large_at_most_as_often_as_alpha() -> None:
    rng = np.random.default_rng(9)
    looks = np.unique(np.geomspace(1, 4000, 60).astype(int))
    alarms = 0
    for _ in range(300):
        events = (rng.random(4000) < 0.01).cumsum()
        alarms += any(exceeds(int(events[n - 1]), int(n), limit=0.01, alpha=ALPHA) for n in looks.tolist())
    assert alarms <= ALPHA * 300


@pytest.mark.parametrize(
    ("events", "trials", "limit", "expected"),
    [(0, 0, 0.1, False), (0, 1000, 0.1, False), (1, 10, 0.0, True), (30, 100, 0.1, True), (10, 100, 0.1, False)],
)
def test_a_share_is_compared_with_its_limit(events: int, trials: int, limit: float, expected: bool) -> None:
    assert exceeds(events, trials, limit=limit, alpha=0.001) is expected


def test_more_events_are_more_evidence() -> None:
    evidence = [log_evidence(events, 200, limit=0.05) for events in (11, 20, 30, 60)]
    assert evidence == sorted(evidence)
    with pytest.raises(ValueError, match="cannot be"):
        log_evidence(3, 2, limit=0.1)


def test_without_trials_the_difference_is_unknown() -> None:
    found = compare_rates(([0], [0]), ([5], [1]), alpha=ALPHA, relative_effect=0.1)
    assert math.isnan(found.difference)
    assert (found.lower, found.upper) == (-math.inf, math.inf)
