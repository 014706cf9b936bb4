"""The paired bootstrap against theory, and its edges."""

from __future__ import annotations

import time

import numpy as np
import pytest

from components.measures import bootstrap
from components.measures.bootstrap import paired_bootstrap


def test_the_interval_is_that_of_the_normal_theory_for_many_users() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, 4000)
    (interval,) = paired_bootstrap(values, resamples=4000, confidence=0.95, seed=1)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.lower == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.upper == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_equal_models_are_not_told_apart() -> None:
    (interval,) = paired_bootstrap(np.zeros(50), resamples=200, confidence=0.95, seed=1)
    assert (interval.mean, interval.lower, interval.upper) == (0.0, 0.0, 0.0)


def test_columns_share_their_draws_and_a_seed_repeats_them() -> None:
    values = np.random.default_rng(0).normal(size=300)
    first, second = paired_bootstrap(np.column_stack([values, values]), resamples=500, confidence=0.9, seed=4)
    again, _ = paired_bootstrap(np.column_stack([values, -values]), resamples=500, confidence=0.9, seed=4)
    (other,) = paired_bootstrap(values, resamples=500, confidence=0.9, seed=5)
    assert first == second == again
    assert first != other


def test_the_chunk_of_draws_held_at_a_time_does_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=70)
    (whole,) = paired_bootstrap(values, resamples=300, confidence=0.95, seed=4)
    monkeypatch.setattr(bootstrap, "_CHUNK_DRAWS", 150)
    (chunked,) = paired_bootstrap(values, resamples=300, confidence=0.95, seed=4)
    assert (chunked.lower, chunked.upper) == pytest.approx((whole.lower, whole.upper), abs=1e-12)


def test_clusters_widen_the_interval_by_the_repetition_they_hold() -> None:
    values = np.random.default_rng(0).normal(size=400)
    repeated, labels = np.repeat(values, 4), np.repeat(np.arange(400), 4)
    (alone,) = paired_bootstrap(values, resamples=3000, confidence=0.95, seed=1)
    (naive,) = paired_bootstrap(repeated, resamples=3000, confidence=0.95, seed=1)
    (clustered,) = paired_bootstrap(repeated, resamples=3000, confidence=0.95, seed=1, clusters=labels)
    assert (clustered.lower, clustered.upper) == pytest.approx((alone.lower, alone.upper), abs=1e-12)
    assert naive.upper - naive.lower == pytest.approx((alone.upper - alone.lower) / 2, rel=0.1)


def test_clusters_of_unequal_size_are_weighed_by_their_users() -> None:
    (interval,) = paired_bootstrap(
        [1.0, 1.0, 1.0, 0.0], resamples=500, confidence=0.95, seed=1, clusters=["a", "a", "a", "b"]
    )
    assert interval.mean == 0.75
    assert (interval.lower, interval.upper) == (0.0, 1.0)


def test_a_user_without_a_value_leaves_no_interval() -> None:
    (interval,) = paired_bootstrap([0.1, np.nan, 0.2], resamples=200, confidence=0.95, seed=1)
    assert all(np.isnan(value) for value in (interval.mean, interval.lower, interval.upper))


def test_no_users_leave_no_interval() -> None:
    (interval,) = paired_bootstrap([], resamples=200, confidence=0.95, seed=1)
    assert np.isnan(interval.lower)


def test_a_hundred_thousand_users_take_under_ten_cpu_seconds() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    started = time.process_time()
    paired_bootstrap(values, resamples=1000, confidence=0.95, seed=1)
    assert time.process_time() - started < 10
