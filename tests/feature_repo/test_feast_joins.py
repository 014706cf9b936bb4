"""Feast's point-in-time join: what was known at a moment, and nothing that was learnt afterwards."""

from __future__ import annotations

import random
from datetime import timedelta

import pandas as pd
import pyarrow as pa
from pandas.testing import assert_frame_equal

from components.core.schemas import TIMESTAMP


def frame_of(key, rows):
    return pa.table(
        {key: pa.array([name for name, _ in rows]), "event_timestamp": pa.array([at for _, at in rows], TIMESTAMP)}
    )


def test_a_join_takes_the_latest_row_at_or_before_the_moment(repo, fill, given):
    moment, user_rows = given
    fill(
        [
            user_rows("ann", moment(1), items=["tea"], frequency=1),
            user_rows("ann", moment(3), items=["jam", "tea"], frequency=2),
            user_rows("bob", moment(2), items=[], frequency=0),
        ]
    )
    asked = [("ann", moment(0)), ("ann", moment(2.9)), ("ann", moment(3)), ("bob", moment(9)), ("eve", moment(9))]

    joined = repo.join("user", frame_of("user_id", asked))

    history = joined["user_history"].to_pylist()
    assert [(row["user_id"], row["event_timestamp"], row["history_items"]) for row in history] == [
        ("ann", moment(0), None),
        ("ann", moment(2.9), ["tea"]),
        ("ann", moment(3), ["jam", "tea"]),
        ("bob", moment(9), []),
        ("eve", moment(9), None),
    ]
    assert joined["user_statistics"]["frequency"].to_pylist() == [None, 1, 2, 0, None]


def test_a_row_that_was_created_later_does_not_leak_into_the_past(repo, fill, given):
    moment, user_rows = given
    fill(
        [
            user_rows("ann", moment(1), items=["tea"], frequency=1),
            user_rows("ann", moment(1), items=["corrected"], frequency=7, created=moment(5)),
        ]
    )

    joined = repo.join("user", frame_of("user_id", [("ann", moment(2)), ("ann", moment(6))]))

    assert joined["user_history"]["history_items"].to_pylist() == [["tea"], ["corrected"]]
    assert joined["user_statistics"]["frequency"].to_pylist() == [1, 7]


def test_joins_of_users_and_items_equal_pandas_as_of_joins(repo, fill, given):
    moment, user_rows = given
    generator = random.Random(3)
    users, items = [], []
    for user in range(40):
        for day in generator.sample(range(30), generator.randrange(6)):
            names = [f"i{generator.randrange(90)}" for _ in range(generator.randrange(8))]
            users.append(user_rows(f"u{user}", moment(day), items=names, monetary=generator.random()))
    for item in range(60):
        for day in generator.sample(range(30), generator.randrange(6)):
            keys = {"item_id": f"i{item}", "event_timestamp": moment(day), "created_timestamp": moment(day)}
            items.append(keys | {"purchases": generator.randrange(99), "median_price": generator.random()})
    fill(users, items)

    for entity, view, rows in (
        ("user", "user_history", [history for history, _ in users]),
        ("user", "user_statistics", [figures for _, figures in users]),
        ("item", "item_statistics", items),
    ):
        key = f"{entity}_id"
        asked = [(f"{entity[0]}{generator.randrange(60)}", moment(generator.randrange(60) / 2)) for _ in range(300)]
        frame = frame_of(key, sorted(set(asked), key=lambda row: (row[1], row[0])))
        joined = repo.join(entity, frame)[view]
        columns = [name for name in joined.column_names if name not in ("event_timestamp", "created_timestamp")]
        source = joined.schema.empty_table().to_pandas()
        source = pd.DataFrame(rows, columns=source.columns).sort_values("event_timestamp", kind="stable")
        expected = pd.merge_asof(
            pd.DataFrame(frame.to_pylist()), source.drop(columns="created_timestamp"), on="event_timestamp", by=key
        )
        got = pd.DataFrame(joined.to_pylist())
        assert len(got) == frame.num_rows
        assert got["event_timestamp"].tolist() == expected["event_timestamp"].tolist()
        got, expected = (table[columns].astype(object).where(table[columns].notna(), None) for table in (got, expected))
        assert_frame_equal(got, expected, check_dtype=False)


def test_item_rows_are_joined_and_stay_offline(repo, fill, given):
    moment, user_rows = given
    row = {"item_id": "tea", "event_timestamp": moment(1), "created_timestamp": moment(1), "purchases": 4}
    fill([user_rows("ann", moment(1), items=["tea"])], [row | {"first_seen": moment(0) + timedelta(microseconds=5)}])

    joined = repo.join("item", frame_of("item_id", [("tea", moment(1))]))["item_statistics"].to_pylist()
    assert (joined[0]["purchases"], joined[0]["first_seen"]) == (4, moment(0) + timedelta(microseconds=5))
    assert {view.name for view in repo.definitions.views if view.online} == {"user_history", "user_statistics"}
