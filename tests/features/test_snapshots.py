"""Features at moments: by hand where a person can follow, and against a plain recount where they cannot."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.schemas import CATALOG, EVENT_WEIGHTS, EVENTS, ITEM_STATISTICS, USER_HISTORY, USER_STATISTICS
from components.core.sections import FeatureSettings
from components.features.snapshots import Snapshots

WEEK = timedelta(days=7)


@pytest.fixture
def snapshot(tmp_path):
    """snapshot(events, moments, catalog, **features) -> the three tables, as lists of rows."""

    def tables(events, moments, catalog=(), **features):
        filled = [
            {"event_id": str(n), "event_type": "purchase", "session_id": None, "quantity": 1.0, "price": None, **row}
            for n, row in enumerate(events)
        ]
        pq.write_table(pa.Table.from_pylist(filled, schema=EVENTS), tmp_path / "events.parquet")
        listed = [dict.fromkeys(CATALOG.names) | row for row in catalog]
        pq.write_table(pa.Table.from_pylist(listed, schema=CATALOG), tmp_path / "catalog.parquet")
        with Snapshots(
            event_files=[tmp_path / "events.parquet"],
            catalog_file=tmp_path / "catalog.parquet",
            moments=moments,
            recent_window=WEEK,
            settings=FeatureSettings(**features),
        ) as snapshots:
            return snapshots.user_history(), snapshots.user_statistics(), snapshots.item_statistics()

    return tables


def bought(user, item, at, **more):
    return {"user_id": user, "item_id": item, "timestamp": at, **more}


def test_a_row_of_a_moment_knows_only_events_before_that_moment(snapshot, day):
    events = [bought("ann", "tea", day(1)), bought("ann", "jam", day(2)), bought("ann", "oil", day(3))]

    history, statistics, items = snapshot(events, [day(2), day(3), day(3.5)])

    assert history["event_timestamp"].to_pylist() == [day(2), day(3), day(3.5)]
    assert history["history_items"].to_pylist() == [["tea"], ["jam", "tea"], ["oil", "jam", "tea"]]
    assert statistics["frequency"].to_pylist() == [1, 2, 3]
    assert [(row["item_id"], row["event_timestamp"]) for row in items.to_pylist()] == [
        ("tea", day(2)),
        ("jam", day(3)),
        ("tea", day(3)),
        ("jam", day(3.5)),
        ("oil", day(3.5)),
        ("tea", day(3.5)),
    ]


def test_history_is_distinct_items_latest_first_with_ties_by_id(snapshot, day):
    events = [
        bought("ann", "tea", day(1)),
        bought("ann", "jam", day(4)),
        bought("ann", "oil", day(4)),
        bought("ann", "tea", day(2), event_type="view"),
        bought("ann", "tea", day(2), event_type="cart"),
        bought("ann", "oil", day(3), event_type="a kind of their own"),
    ]

    history, _, _ = snapshot(events, [day(6)])

    row = history.to_pylist()[0]
    assert row["history_items"] == ["jam", "oil", "tea"]
    assert row["history_weights"] == pytest.approx([1.0, 1.2, 1.7])
    assert row["history_ages_days"] == [2.0, 2.0, 4.0]
    assert row["recent_items"] == ["jam", "oil", "oil", "tea", "tea", "tea"]
    assert row["recent_times"] == [day(4), day(4), day(3), day(2), day(2), day(1)]


def test_histories_keep_the_latest_items_up_to_their_length(snapshot, day):
    events = [bought("ann", f"i{n}", day(n)) for n in range(6)] + [bought("bob", "i0", day(0))]

    history, _, _ = snapshot(events, [day(9)], history_length=2, recent_items=3)

    assert history["history_items"].to_pylist() == [["i5", "i4"], ["i0"]]
    assert history["recent_items"].to_pylist() == [["i5", "i4", "i3"], ["i0"]]


def test_anonymous_rows_count_for_items_and_never_for_users(snapshot, day):
    events = [bought(None, "tea", day(1), session_id="s1"), bought("ann", "tea", day(2))]

    history, _, items = snapshot(events, [day(3)])

    assert history["user_id"].to_pylist() == ["ann"]
    assert items.to_pylist()[0]["purchases"] == 2
    assert items.to_pylist()[0]["distinct_users"] == 1
    assert items.to_pylist()[0]["first_seen"] == day(1)


def test_a_user_who_was_only_shown_items_has_empty_lists_and_no_figures(snapshot, day):
    history, statistics, _ = snapshot([bought("ann", "tea", day(1), event_type="impression")], [day(2)])

    assert history.to_pylist()[0]["history_items"] == []
    assert history.to_pylist()[0]["recent_items"] == []
    row = statistics.to_pylist()[0]
    assert (row["recency_days"], row["frequency"], row["monetary"], row["price_level"]) == (None, 0, None, None)
    assert (row["distinct_items"], row["top_categories"]) == (0, [])


def test_user_statistics_by_hand(snapshot, day):
    catalog = [
        {"item_id": "tea", "category": "drinks"},
        {"item_id": "cocoa", "category": "drinks"},
        {"item_id": "jam", "category": "spreads"},
    ]
    events = [
        bought("ann", "tea", day(1), session_id="monday", price=2.0, quantity=3.0),
        bought("ann", "jam", day(1), session_id="monday", price=4.0),
        bought("ann", "odd", day(3), session_id="wednesday", price=1.5),
        bought("ann", "cocoa", day(4), event_type="view"),
        bought("bob", "cocoa", day(4), session_id="monday", price=9.0),
    ]

    _, statistics, _ = snapshot(events, [day(5)], catalog)

    ann, bob = statistics.to_pylist()
    assert ann["recency_days"] == 2.0
    assert ann["frequency"] == 2
    assert ann["monetary"] == 2.0 * 3 + 4.0 + 1.5
    assert ann["basket_size"] == 1.5
    assert ann["distinct_items"] == 4
    # Tea is the cheaper of two drinks, jam and the uncategorised item are alone; Ann bought no cocoa.
    assert ann["price_level"] == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    assert bob["price_level"] == 0.75
    # Weights 1 tea, 1 jam, 1 uncategorised, 0.2 cocoa.
    assert ann["top_categories"] == ["drinks", "spreads"]
    assert ann["top_category_shares"] == pytest.approx([1.2 / 3.2, 1.0 / 3.2])


def test_a_basket_that_a_moment_cuts_is_counted_as_far_as_it_was_seen(snapshot, day):
    events = [
        bought("ann", "tea", day(1), session_id="long", price=1.0),
        bought("ann", "tea", day(3), session_id="long", price=1.0),
        bought("ann", "jam", day(3), session_id="long", price=1.0),
    ]

    _, statistics, _ = snapshot(events, [day(2), day(4)])

    assert statistics["frequency"].to_pylist() == [1, 1]
    assert statistics["basket_size"].to_pylist() == [1.0, 2.0]
    assert statistics["monetary"].to_pylist() == [1.0, 3.0]


def test_item_statistics_by_hand(snapshot, day):
    prices = [5.0, 1.0, 3.0, 1.0]
    events = [bought("ann", "tea", day(n), price=price) for n, price in enumerate(prices)]
    events += [
        bought("bob", "tea", day(9.5), price=None),
        bought("bob", "tea", day(9.5), event_type="view", price=99.0),
    ]

    _, _, items = snapshot(events, [day(2.5), day(10)])

    first, last = items.to_pylist()
    assert (first["distinct_users"], first["purchases"], first["recent_purchases"]) == (1, 3, 3)
    assert first["median_price"] == 3.0
    # The week before day 10 begins with day 3, inclusive.
    assert (last["distinct_users"], last["purchases"], last["recent_purchases"]) == (2, 5, 2)
    assert last["median_price"] == 2.0


def test_an_empty_catalogue_and_moments_before_the_log_are_no_error(snapshot, day):
    history, statistics, items = snapshot([bought("ann", "tea", day(5))], [day(-30), day(6)])

    assert history["event_timestamp"].to_pylist() == [day(6)]
    assert statistics["top_categories"].to_pylist() == [[]]
    assert items.num_rows == 1


def test_a_log_without_an_event_gives_empty_tables(tmp_path, day):
    pq.write_table(CATALOG.empty_table(), tmp_path / "catalog.parquet")
    with Snapshots(
        event_files=[],
        catalog_file=tmp_path / "catalog.parquet",
        moments=[day(1)],
        recent_window=WEEK,
        settings=FeatureSettings(),
    ) as snapshots:
        assert snapshots.user_history().equals(USER_HISTORY.empty_table())
        assert snapshots.user_statistics().equals(USER_STATISTICS.empty_table())
        assert snapshots.item_statistics().equals(ITEM_STATISTICS.empty_table())


def test_what_comes_later_changes_nothing_that_was_known(snapshot, day, random_rows):
    events, catalog = random_rows
    moments = [day(20), day(27)]

    with_future = snapshot(events, [*moments, day(45)], catalog)
    without = snapshot([row for row in events if row["timestamp"] < day(27)], moments, catalog)

    for after, before in zip(with_future, without, strict=True):
        assert after.slice(0, before.num_rows).equals(before)
        assert after["event_timestamp"].to_pylist()[before.num_rows] == day(45)


def test_rows_in_any_order_give_the_same_tables(snapshot, day, random_rows):
    events, catalog = random_rows
    shuffled = random.Random(1).sample(events, len(events))

    for one, other in zip(
        snapshot(events, [day(20), day(45)], catalog), snapshot(shuffled, [day(20), day(45)], catalog), strict=True
    ):
        assert one.equals(other)


def test_histories_equal_a_plain_recount(snapshot, day, random_rows):
    events, catalog = random_rows
    moments = [day(20), day(27), day(45)]

    history, _, _ = snapshot(events, moments, catalog)

    rows = {(row["event_timestamp"], row["user_id"]): row for row in history.to_pylist()}
    expected_keys = {(at, e["user_id"]) for at in moments for e in events if e["user_id"] and e["timestamp"] < at}
    assert set(rows) == expected_keys
    for (at, user), row in rows.items():
        weight, last = defaultdict(float), {}
        for event in events:
            value = EVENT_WEIGHTS[event["event_type"]]
            if event["user_id"] == user and event["timestamp"] < at and value > 0:
                weight[event["item_id"]] += value
                last[event["item_id"]] = max(last.get(event["item_id"], event["timestamp"]), event["timestamp"])
        order = sorted(last, key=lambda item: (-last[item].timestamp(), item))
        assert row["history_items"] == order
        assert row["history_weights"] == pytest.approx([weight[item] for item in order])
        assert row["history_ages_days"] == pytest.approx([(at - last[item]) / timedelta(days=1) for item in order])


def test_statistics_equal_a_plain_recount(snapshot, day, random_rows):
    events, catalog = random_rows
    moments = [day(20), day(27), day(45)]

    _, statistics, items = snapshot(events, moments, catalog)

    for row in statistics.to_pylist():
        at, user = row["event_timestamp"], row["user_id"]
        mine = [e for e in events if e["user_id"] == user and e["timestamp"] < at and e["event_type"] == "purchase"]
        baskets = defaultdict(set)
        for event in mine:
            baskets[event["session_id"] or event["timestamp"].date()].add(event["item_id"])
        assert row["frequency"] == len(baskets)
        assert row["basket_size"] == pytest.approx(sum(map(len, baskets.values())) / len(baskets))
        assert row["recency_days"] == (at - max(e["timestamp"] for e in mine)) / timedelta(days=1)
        paid = sum(e["price"] * (e["quantity"] or 1) for e in mine if e["price"] is not None)
        assert row["monetary"] == pytest.approx(paid)
    for row in items.to_pylist():
        at, item = row["event_timestamp"], row["item_id"]
        sales = [e for e in events if e["item_id"] == item and e["timestamp"] < at and e["event_type"] == "purchase"]
        assert row["purchases"] == len(sales)
        assert row["recent_purchases"] == sum(e["timestamp"] >= at - WEEK for e in sales)
        prices = [e["price"] for e in sales if e["price"] is not None]
        assert row["median_price"] == (pytest.approx(median(prices)) if prices else None)
