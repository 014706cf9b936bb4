"""Limits learnt from quiet windows: what they are, when they alarm, how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.monitor.measures import MEASURES, Measure, Reading
from components.monitor.thresholds import (
    GUARD_WINDOWS,
    Expectation,
    Judged,
    Limits,
    cusum_limit,
    from_scale,
    judge,
    to_scale,
)

LIMITS = Limits(quiet_windows=28, min_windows=14, false_alarm_rate=0.002, num_measures=20)
LEVEL = Measure(name="level", family="f", help="h", scale="plain", least=0.0, bound=100.0)


def follow(values: list[float], *, measure: Measure = LEVEL, limits: Limits = LIMITS) -> list[Judged]:
    expectation, judged = Expectation(limits), []
    for value in values:
        judged.append(
            judge(
                measure,
                Reading(value=value, count=1000),
                expectation=expectation,
                before=judged[-1] if judged else None,
                reference=10.0,
                offset=0.0,
                limits=limits,
                bound=measure.bound,
            )
        )
        if judged[-1].cause is None:
            expectation.learn(to_scale(measure.scale, value))
        else:
            expectation.skip()
    return judged


def noise(count: int, *, seed: int = 0) -> list[float]:
    return (10 + np.random.default_rng(seed).normal(size=count)).tolist()


def test_until_there_are_enough_quiet_windows_only_the_bound_by_hand_alarms() -> None:
    judged = follow([*noise(LIMITS.min_windows - 1), 60.0])
    assert [one.cause for one in judged] == [None] * LIMITS.min_windows
    assert all(math.isnan(one.deviation) for one in judged)
    assert follow([*noise(5), 111.0])[-1].cause == "bound"


def test_a_jump_alarms_at_once_and_says_on_which_side() -> None:
    up, down = follow([*noise(40), 30.0])[-1], follow([*noise(40), -10.0])[-1]
    assert (up.cause, down.cause) == ("window", "window")
    assert up.upper is not None
    assert up.value > up.upper
    assert down.lower is not None
    assert down.value < down.lower


def test_a_small_step_alarms_as_lasting_after_some_windows() -> None:
    judged = follow([*noise(60, seed=1), *(value + 2.5 for value in noise(15, seed=11))])
    assert {one.cause for one in judged[:60]} == {None}
    first = next(place for place, one in enumerate(judged[60:], start=1) if one.cause)
    assert judged[59 + first].cause == "lasting"
    assert 2 <= first <= 12


def test_a_distance_alarms_upwards_alone() -> None:
    distance = Measure(name="d", family="f", help="h", scale="distance", least=0.0, bound=1.0)
    values = (0.2 + 0.01 * np.random.default_rng(0).normal(size=40)).tolist()
    assert follow([*values, 0.0], measure=distance)[-1].cause is None
    assert follow([*values, 0.4], measure=distance)[-1].cause == "window"


def test_what_matters_little_does_not_alarm_however_certain_it_is() -> None:
    small = Measure(name="s", family="f", help="h", scale="plain", least=0.5, bound=100.0)
    exact = [10.0 + 0.001 * (place % 2) for place in range(40)]
    assert follow([*exact, 10.4], measure=small)[-1].cause is None
    assert follow([*exact, 10.6], measure=small)[-1].cause == "window"


def test_a_slow_trend_is_no_drift() -> None:
    values = [value + 0.05 * place for place, value in enumerate(noise(150))]
    assert [one.cause for one in follow(values) if one.cause] == []


def test_windows_of_noise_alarm_falsely_no_more_often_than_was_allowed() -> None:
    # One measure of the 20: its share of the windows' rate is a twentieth.
    windows = alarms = 0
    for seed in range(8):
        judged = follow(noise(220, seed=seed), limits=Limits(
            quiet_windows=28, min_windows=14, false_alarm_rate=0.2, num_measures=20
        ))  # fmt: skip
        windows += len(judged) - 14
        alarms += sum(one.cause is not None for one in judged)
    assert alarms <= 0.01 * windows
    assert alarms > 0  # a limit that never alarms would pass as well


def test_the_bound_by_hand_of_a_share_stays_a_share() -> None:
    share = Measure(name="s", family="f", help="h", scale="share", least=0.0, bound=0.4)
    one = judge(
        share,
        Reading(value=0.1, count=100),
        expectation=Expectation(LIMITS),
        before=None,
        reference=0.1,
        offset=0.0,
        limits=LIMITS,
        bound=share.bound,
    )
    assert (one.lower, one.upper, one.cause) == (0.0, 0.5, None)


def test_a_measure_that_training_shows_too_well_is_bound_by_what_quiet_windows_let_expect() -> None:
    # Training had 10; quiet windows have 5, which a bound of 2 from training would call an alarm.
    fitted = Measure(name="m", family="f", help="h", scale="plain", least=1.5, bound=2.0, in_sample=True)
    quiet = [value / 10 + 4 for value in noise(40)]
    judged = follow([*quiet, 7.5], measure=fitted)
    assert {one.cause for one in judged[:-1]} == {None}
    assert judged[-1].cause == "bound"
    plain_one = Measure(name="m", family="f", help="h", scale="plain", least=1.5, bound=2.0)
    assert follow(quiet, measure=plain_one)[0].cause == "bound"


def test_alarmed_windows_are_not_learnt_from() -> None:
    judged = follow([*noise(40), *[30.0] * 20])
    assert [one.cause for one in judged[40:]] == ["window"] * 20
    assert judged[-1].upper is not None
    assert judged[-1].upper < 20


def test_the_newest_quiet_windows_stand_back_from_what_is_expected() -> None:
    expectation = Expectation(LIMITS)
    for value in noise(30):
        expectation.learn(value)
    before = expectation.next()
    for _ in range(GUARD_WINDOWS):
        expectation.learn(1000.0)
    assert before is not None
    after = expectation.next()
    assert after is not None
    assert after[0] < 20


def test_no_figure_is_no_alarm() -> None:
    assert follow([*noise(40), math.nan])[-1].cause is None


def test_the_cusum_limit_is_siegmunds() -> None:
    limit = cusum_limit(0.001)
    reach = limit + 1.166
    assert (math.exp(2 * reach) - 2 * reach - 1) / 2 == pytest.approx(1000, rel=1e-6)
    assert cusum_limit(0.0001) > limit


@pytest.mark.parametrize("scale", ["ratio", "share", "divergence", "distance", "plain"])
def test_scales_can_be_left_the_way_they_were_entered(scale: str) -> None:
    for value in (0.5, 0.7, 0.99):
        assert from_scale(scale, to_scale(scale, value)) == pytest.approx(value)  # type: ignore[arg-type]


def test_each_measure_is_declared_once_with_bounds_that_can_be_reached() -> None:
    names = [measure.name for measure in MEASURES]
    assert len(set(names)) == len(names)
    for measure in MEASURES:
        assert measure.least >= 0, measure.name
        assert measure.bound > (1 if measure.scale == "ratio" else 0), measure.name
        assert measure.help.endswith("."), measure.name
