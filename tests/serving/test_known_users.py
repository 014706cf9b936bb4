"""A history that needs no joining is taken as it is, and is what joining makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from feature_repo.online_rows import _VALUE, decode
from feature_repo.stored_values import StoredStrings
from serving import known
from serving.fresh import FreshEvent
from serving.known import ItemRows, Known, know, know_many
from serving.online import OnlineUser

INDEX = {f"i{10 - row}": row for row in range(11)}
ROWS = {f"i{n}": n for n in range(8)}
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
    short = know((), user(items, ages), (), rows=ItemRows(INDEX), now=NOW, max_history=2)
    monkeypatch.setattr(known, "_online_alone", lambda user, rows: None)
    assert_known_alike([know((), user(items, ages), (), rows=ItemRows(INDEX), now=NOW, max_history=2)], [short])


def test_a_stored_history_in_order_is_not_joined(monkeypatch):
    monkeypatch.setattr(known.math, "inf", None)  # joining would compare with it
    found = know((), user(["i3", "i0"], [1.0, 4.0]), (), rows=ItemRows(INDEX), now=NOW, max_history=9)
    assert [list(one) for one in (found.items, found.weights, found.ages_days)] == [[7, 10], [1.0, 2.0], [1.0, 4.0]]
    assert (found.source, found.feature_age_seconds) == ("online_store", 60.0)


def stored(items: list[str], ages: list[float], weights: list[float] | None = None) -> OnlineUser:
    message = _VALUE()
    message.string_list_val.val.extend(items)
    return OnlineUser(
        items=StoredStrings(message.SerializeToString(), decode),
        weights=np.array([1.0 + n for n in range(len(items))] if weights is None else weights, np.float32),
        ages_days=np.array(ages, np.float32),
        statistics={"frequency": 2.0},
        age_seconds=60.0,
    )


USERS = [
    stored(["i1", "i2", "i3"], [0.0, 1.5, 1.5]),
    stored(["i3", "i2"], [0.0, 0.5]),
    None,
    stored(["i1", "i2", "i3"], [2.0, 1.0, 3.0]),
    stored(["i1", "gone", "i3"], [0.0, 1.0, 2.0]),
    stored(["i1", "i2", "i1"], [0.0, 1.0, 2.0]),
    stored(["i1", "i2", "i3"], [-1.0, 0.0, 2.0]),
    stored(["gone"], [1.0]),
    stored([], []),
    user(["i1", "i2"], [0.0, 1.0]),
    stored(["i5"], [1.0]),
    stored([f"i{n}" for n in range(7)], [float(n) for n in range(7)]),
    stored(["i7", "i0"], [3.0, 4.0]),
]


def assert_known_alike(found: list[Known], expected: list[Known]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("items", "weights", "ages_days"):
            assert list(getattr(one, name)) == list(getattr(other, name))
        rest = ("statistics", "source", "feature_age_seconds", "fresh_events", "unknown_items")
        assert [getattr(one, name) for name in rest] == [getattr(other, name) for name in rest]


@pytest.mark.parametrize("users", [USERS, [*USERS, stored(["line\nbreak", "i1"], [0.0, 1.0])], [None], USERS[:1]])
def test_many_are_known_as_each_alone(users):
    fresh = [()] * len(users)
    fresh[0] = (FreshEvent("e", "i4", 0.2, NOW.timestamp()),)
    expected = [
        know((), one, events, rows=ItemRows(ROWS), now=NOW, max_history=6)
        for one, events in zip(users, fresh, strict=True)
    ]
    found = know_many(users, fresh, rows=ItemRows(ROWS), now=NOW, max_history=6)
    assert_known_alike(found, expected)


def test_stored_histories_in_order_are_read_as_one(monkeypatch):
    asked = []
    monkeypatch.setattr(known, "know", lambda *_, **__: asked.append(1))
    know_many(USERS, [()] * len(USERS), rows=ItemRows(ROWS), now=NOW, max_history=6)
    # The stranger, the five that need joining, the empty one, the one that is not stored so, and the one too long.
    assert len(asked) == 9


@pytest.mark.parametrize("hash_of", [hash, len, lambda item_id: -1])
def test_ids_are_found_whatever_their_hashes(hash_of, monkeypatch):
    monkeypatch.setattr(known, "hash", hash_of, raising=False)
    ids = [*reversed(INDEX), "i3", "gone"]
    for index in (INDEX, {}):
        assert ItemRows(index).of_ids(ids).tolist() == [index.get(item_id, -1) for item_id in ids]
