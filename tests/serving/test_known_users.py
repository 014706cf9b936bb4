"""A history that needs no joining is taken as it is, and is what joining makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from components.core.errors import FeatureStoreError
from feature_repo.online_rows import _VALUE, Fields
from feature_repo.stored_users import SCALAR_STATISTICS, SERVED, StoredUsers
from feature_repo.stored_values import record_offsets
from serving import item_rows, known, known_many
from serving.fresh import FreshEvent
from serving.item_rows import ItemRows
from serving.known import Known, histories_of, know, statistics_of
from serving.known_many import KnownUsers, know_many
from serving.online import OnlineUser, OnlineUsers

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
    assert found.facts[:2] == ("online_store", 60.0)


def value(kind: str, held: list) -> bytes:
    message = _VALUE()
    getattr(message, kind).val.extend(held)
    getattr(message, kind).SetInParent()
    return message.SerializeToString()


def stored(items: list[str], ages: list[float], weights: list[float] | None = None) -> tuple:
    """What the store answers of a user whose features are a minute old."""
    weights = [1.0 + n for n in range(len(items))] if weights is None else weights
    minute = 60 / 86_400
    lists = value("float_list_val", weights), value("float_list_val", [age - minute for age in ages])
    frequency = _VALUE(int64_val=len(items)).SerializeToString()
    statistics = [frequency if name == "frequency" else None for name in SCALAR_STATISTICS]
    moment = NOW.timestamp() - 60
    return (moment, value("string_list_val", items), *lists, moment, *statistics)


ANSWERS = [
    stored(["i1", "i2", "i3"], [0.25, 1.5, 1.5]),
    stored(["i3", "i2"], [0.25, 0.5]),
    None,
    stored(["i1", "i2", "i3"], [2.0, 1.0, 3.0]),
    stored(["i1", "gone", "i3"], [0.25, 1.0, 2.0]),
    stored(["i1", "i2", "i1"], [0.25, 1.0, 2.0]),
    stored(["i1", "i2", "i3"], [-1.0, 0.25, 2.0]),
    stored(["gone"], [1.0]),
    stored([], []),
    (NOW.timestamp(), None, None, None, None, *[None] * len(SCALAR_STATISTICS)),
    stored(["i5"], [1.0]),
    stored([f"i{n}" for n in range(7)], [n + 0.25 for n in range(7)]),
    stored(["i7", "i0"], [3.0, 4.0]),
]
STATISTICS = ("monetary", "frequency", "unheard_of")


def online_users(answers: list) -> OnlineUsers:
    users = [str(at) for at in range(len(answers))]
    return OnlineUsers(StoredUsers(users, answers, Fields(SERVED), now=NOW), now=NOW)


def known_alone(users: list, fresh: list, *, max_history: int) -> KnownUsers:
    alone = [
        know((), one, events, rows=ItemRows(ROWS), now=NOW, max_history=max_history)
        for one, events in zip(users, fresh, strict=True)
    ]
    return KnownUsers(histories_of(alone), statistics_of(alone, STATISTICS), [one.facts for one in alone])


def known_together(users, fresh, *, max_history: int) -> KnownUsers:
    rows = ItemRows(ROWS)
    return know_many(users, fresh, rows=rows, now=NOW, max_history=max_history, statistics=STATISTICS)


def assert_users_alike(found: KnownUsers, expected: KnownUsers) -> None:
    for part in ("indptr", "items", "weights", "ages_days"):
        torch.testing.assert_close(getattr(found.histories, part), getattr(expected.histories, part), rtol=0, atol=0)
    torch.testing.assert_close(found.statistics_BF, expected.statistics_BF, rtol=0, atol=0, equal_nan=True)
    assert [(*one[:3], list(one.unknown_items)) for one in found.facts] == [
        (*one[:3], list(one.unknown_items)) for one in expected.facts
    ]


def assert_known_alike(found: list[Known], expected: list[Known]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name in ("items", "weights", "ages_days"):
            assert list(getattr(one, name)) == list(getattr(other, name))
        assert one.statistics == other.statistics
        assert (*one.facts[:3], list(one.facts.unknown_items)) == (*other.facts[:3], list(other.facts.unknown_items))


@pytest.mark.parametrize(
    "answers",
    [
        ANSWERS,
        [*ANSWERS, stored(["line\nbreak", "i1"], [0.25, 1.0])],
        [None, ANSWERS[8]],
        ANSWERS[4:8],
        ANSWERS[:2],
        [None],
    ],
)
@pytest.mark.parametrize("max_history", [1, 6])
def test_users_are_known_together_as_each_alone(answers, max_history: int):
    fresh = [(FreshEvent("e", "i4", 0.2, NOW.timestamp()),) if at == 1 else () for at in range(len(answers))]
    users = online_users(answers)
    found = known_together(users, fresh, max_history=max_history)
    assert_users_alike(found, known_alone(list(users), fresh, max_history=max_history))


def test_users_of_another_reader_are_known_one_by_one():
    users = [user(["i1", "i2"], [0.0, 1.0]), None]
    assert_users_alike(known_together(users, [(), ()], max_history=6), known_alone(users, [(), ()], max_history=6))


def test_stored_histories_in_order_are_read_as_one(monkeypatch):
    asked = []
    alone = known_many.know
    monkeypatch.setattr(known_many, "know", lambda *given, **rest: (asked.append(1), alone(*given, **rest))[1])
    known_together(online_users(ANSWERS), [()] * len(ANSWERS), max_history=6)
    # The stranger, the five that need joining, the two without a history, and the one too long.
    assert len(asked) == 9
    asked.clear()
    known_together(online_users(ANSWERS[:2]), [(), ()], max_history=6)
    assert not asked


def test_values_that_are_none_are_met_where_the_store_is_read():
    broken = (*ANSWERS[0][:2], b"\xff\xff", *ANSWERS[0][3:])
    with pytest.raises(FeatureStoreError, match="features step"):
        online_users([ANSWERS[0], broken])


@pytest.mark.parametrize("hash_of", [hash, len, lambda item_id: -1])
def test_ids_are_found_whatever_their_hashes(hash_of, monkeypatch):
    monkeypatch.setattr(item_rows, "hash", hash_of, raising=False)
    ids = [*reversed(INDEX), "i3", "gone"]
    for index in (INDEX, {}):
        assert ItemRows(index).of_ids(ids).tolist() == [index.get(item_id, -1) for item_id in ids]


ODD_IDS = ["", "a", "b", "aa", "a" * 7, "a" * 8, "b" * 8, "a" * 9, "a" * 16, "é" * 30, "a\0", "a\0\0", "\0", "x" * 127]


@pytest.mark.parametrize("are_alike", [False, True])
def test_stored_ids_are_found_as_texts_are(are_alike, monkeypatch):
    if are_alike:
        monkeypatch.setattr(item_rows, "text_hashes", lambda joined, starts, lengths: lengths.astype(np.uint64))
    ids = [*ODD_IDS, *INDEX, "gone", "a" * 10, "é", "a\0\0\0", *(f"{n:08d}" for n in range(500)), *ODD_IDS]
    records = b"".join(_VALUE(string_list_val={"val": [one]}).string_list_val.SerializeToString() for one in ids)
    for index in ({**INDEX, **{item_id: 11 + row for row, item_id in enumerate(ODD_IDS)}, "y" * 300: 99}, {}):
        rows = ItemRows(index).of_records(records, record_offsets(records))
        assert rows.tolist() == [index.get(item_id, -1) for item_id in ids]
    assert ItemRows(INDEX).of_records(b"", record_offsets(b"")).tolist() == []


def test_hashes_of_texts_differ_and_depend_on_the_text_alone():
    texts = [f"{n:x}".encode() for n in range(50_000)]
    joined = b"".join(texts)
    lengths = np.array([len(text) for text in texts])
    hashes = item_rows.text_hashes(joined, np.cumsum(lengths) - lengths, lengths)
    assert len(set(hashes.tolist())) == len(texts)
    assert abs(np.unpackbits(hashes.view(np.uint8)).mean() - 0.5) < 0.002
    alone = [item_rows.text_hashes(text, np.array([0]), np.array([len(text)]))[0] for text in texts[::999]]
    assert alone == hashes[::999].tolist()
