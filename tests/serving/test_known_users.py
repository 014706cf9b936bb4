"""A history that needs no joining is taken as it is, and is what joining makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving import known
from serving.known import know
from serving.online import OnlineUser

INDEX = {f"i{n}": 10 - n for n in range(8)}
NOW = datetime(2024, 3, 1, tzinfo=UTC)


def user(items: list[str], ages: list[float]) -> OnlineUser:
    return OnlineUser(
        items=items,
        weights=[1.0 + n for n in range(len(items))],
        ages_days=ages,
        statistics={"frequency": 2.0},
        age_seconds=60.0,
    )


@pytest.mark.parametrize(
    ("items", "ages"),
    [
        (["i1", "i2", "i3"], [0.0, 1.5, 1.5]),
        (["i1", "i2", "i3"], [2.0, 1.0, 3.0]),
        (["i1", "gone", "i3"], [0.0, 1.0, 2.0]),
        (["i1", "i1", "i3"], [0.0, 1.0, 2.0]),
        (["i1", "i2", "i3"], [-1.0, 0.0, 2.0]),
        (["gone"], [1.0]),
        ([], []),
    ],
)
def test_the_short_way_and_the_joining_agree(items, ages, monkeypatch):
    short = know((), user(items, ages), (), index=INDEX, now=NOW, max_history=2)
    monkeypatch.setattr(known, "_online_alone", lambda user, index: None)
    assert know((), user(items, ages), (), index=INDEX, now=NOW, max_history=2) == short


def test_a_stored_history_in_order_is_not_joined(monkeypatch):
    monkeypatch.setattr(known.math, "inf", None)  # joining would compare with it
    found = know((), user(["i3", "i0"], [1.0, 4.0]), (), index=INDEX, now=NOW, max_history=9)
    assert (found.items, found.weights, found.ages_days) == ([7, 10], [1.0, 2.0], [1.0, 4.0])
    assert (found.source, found.feature_age_seconds) == ("online_store", 60.0)
