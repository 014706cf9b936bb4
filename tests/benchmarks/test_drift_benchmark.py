"""The drift benchmark on small worlds: its counts, its delays, and what it writes."""

from __future__ import annotations

from typing import Any

import pytest

import benchmarks.drift.__main__ as bench
from benchmarks.drift.shop import TRAINING_DAYS, watched_days
from components.monitor.measures import WINDOW_MEASURES
from components.monitor.thresholds import Limits
from components.simulate.settings import WorldSettings

SHOP: dict[str, Any] = {"users": 250, "items": 120, "sessions_per_user_day": 0.3}
LIMITS = Limits(quiet_windows=28, min_windows=14, false_alarm_rate=0.001, num_measures=len(WINDOW_MEASURES))


def test_a_doubled_volume_is_noticed_and_by_the_sessions() -> None:
    row = bench._drifted("volume", 2.0, range(1), LIMITS, SHOP)
    assert (row["worlds"], row["noticed"], row["median_delay_days"]) == (1, 1, 1)
    assert "sessions" in row["noticed_first_by"]


def test_the_reference_is_of_the_training_days_and_the_windows_follow_it() -> None:
    reference, days = watched_days(WorldSettings(seed=3, days=TRAINING_DAYS + 3, **SHOP))
    assert reference.num_days == TRAINING_DAYS
    assert [(day - reference.last).days for day, _ in days] == [1, 2, 3]
    # What training saw most it sees later too.
    assert reference.total["steps_on_edges"] / reference.total["steps"] > 0.3


def test_what_is_written_holds_the_counts_and_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, Any] = {}
    monkeypatch.setattr(bench, "write_result", lambda name, result: written.update({name: result}) or "path")
    monkeypatch.setattr(bench, "SIZES", {"price": (0.3,)})
    bench.main(quiet_seeds=1, quiet_days=20, drift_seeds=1, users=250, items=120, sessions=0.3, rate=None)
    result = written["drift"]
    assert result["quiet_windows"] == 20
    assert result["false_alarm_share"] == result["false_alarms"] / 20
    assert [(row["kind"], row["size"], row["delays_days"]) for row in result["drift"]] == [("price", 0.3, [1])]
