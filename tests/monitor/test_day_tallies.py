"""A day's events as counts through a lens of three items, by hand; and days judged one after the other."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.core.schemas import EVENTS
from components.monitor.lens import NAMED_CATEGORIES, Lens, make_lens
from components.monitor.measures import WINDOW_MEASURES
from components.monitor.page import render_page
from components.monitor.tally import Bins, Tally, add, cut_bins, days_between, from_plain, plain, tally_day
from components.monitor.thresholds import Limits
from components.monitor.verdict import samples_of, statistics_of
from components.monitor.windows import Reference, Window, is_whole, judge_windows

MONDAY = date(2024, 1, 1)
BY_NAME = {measure.name: measure for measure in WINDOW_MEASURES}
LIMITS = Limits(quiet_windows=28, min_windows=14, false_alarm_rate=0.001, num_measures=21)


@pytest.fixture
def lens() -> Lens:
    """Items tea, milk (DRINKS) and soap (no category); ann has taken tea and milk, bob milk."""
    return make_lens(
        item_ids=["tea", "milk", "soap"],
        categories=["DRINKS", "DRINKS", None],
        users_of_item=[1, 2, 0],
        prices=[2.0, 1.0, np.nan],
        edges=(np.array([0]), np.array([1])),
        user_ids=["ann", "bob"],
        tastes=(np.array([0, 1]), ["DRINKS", "DRINKS"], np.array([0.75, 1.0])),
        seen=(np.array([0, 0, 1]), np.array([0, 1, 1])),
    )


def events(rows: list[dict[str, Any]], *, day: date = MONDAY) -> pa.Table:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    filled = [
        {
            "event_id": str(number),
            "user_id": row.get("user"),
            "item_id": row["item"],
            "event_type": row.get("kind", "view"),
            "timestamp": midnight + timedelta(hours=row.get("hour", 12), seconds=number),
            "session_id": row.get("session", "s"),
            "quantity": row.get("quantity"),
            "price": row.get("price"),
        }
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=EVENTS)


DAY = [
    {"user": "ann", "item": "tea", "price": 4.0, "session": "s1", "hour": 9},
    {"user": "ann", "item": "milk", "price": 1.0, "session": "s1", "hour": 9},
    {"user": "ann", "item": "milk", "kind": "purchase", "quantity": 2.0, "price": 1.0, "session": "s1", "hour": 9},
    {"user": "eve", "item": "soap", "price": None, "session": "s2", "hour": 20},
    {"user": None, "item": "rope", "kind": "wink", "price": 9.0, "session": "s3", "hour": 21},
]
BINS = Bins(
    event_types=("purchase", "view"),
    price=np.array([2.0]),
    quantity=np.array([5.0]),
    session_events=np.array([2.0]),
    depth=np.array([1.5]),
)


def test_a_day_is_counted_as_by_hand(lens: Lens) -> None:
    tally = tally_day(events(DAY), lens, BINS)
    counted = {name: counts.tolist() for name, counts in tally.items()}
    assert (counted["events"], counted["sessions"], counted["named"]) == ([5], [3], [4])
    assert counted["event_type"] == [1, 3, 1]  # purchase, view, a kind that training did not have
    assert counted["price"] == [2, 2, 1]  # under 2, from 2 on, none
    assert counted["quantity"] == [1, 0, 0]  # of the one event that states a want
    assert counted["session_events"] == [2, 1, 0]  # two of one event, one of three
    assert (counted["unknown_users"], counted["unknown_items"]) == ([1], [1])
    assert counted["named_sessions"] == [2]
    assert counted["hour"][9] == 3
    assert counted["category"][0] == 3  # DRINKS, the most used
    assert counted["category"][NAMED_CATEGORIES + 1] == 1  # soap has none
    # Ann's three events: 0.75 of her taste each; tea and milk, which she had; one step from tea to milk, an edge.
    assert counted["taste_sum"] == [pytest.approx(2.25)]
    assert (counted["tasted"], counted["repeats"]) == ([3], [3])
    assert (counted["steps"], counted["steps_on_edges"]) == ([1], [1])
    # Tea at twice its price, milk twice at its own; soap has no price and rope no place.
    assert counted["priced"] == [3]
    assert counted["log_price_ratio"] == [pytest.approx(np.log(2))]


def test_measures_read_tallies(lens: Lens) -> None:
    tally = tally_day(events(DAY), lens, BINS)
    values = {measure.name: measure.read(tally, tally).value for measure in WINDOW_MEASURES if measure.read}
    assert values["sessions"] == 3
    assert values["wanting_share"] == pytest.approx(1 / 5)
    assert values["anonymous_share"] == pytest.approx(1 / 3)
    assert values["new_item_share"] == pytest.approx(1 / 5)
    assert values["new_user_share"] == pytest.approx(1 / 4)
    assert values["price_nulls"] == pytest.approx(1 / 5)
    assert values["taste_match"] == pytest.approx(0.75)
    assert values["edge_share"] == 1
    assert values["price_level"] == pytest.approx(np.log(2) / 3)
    assert [values[name] for name in ("event_mix", "price_psi", "category_mix", "hours")] == pytest.approx([0] * 4)


def test_an_empty_day_counts_nothing_and_fails_nothing(lens: Lens) -> None:
    tally = tally_day(EVENTS.empty_table(), lens, BINS)
    assert {float(counts.sum()) for counts in tally.values()} == {0.0}
    assert {name: len(counts) for name, counts in tally.items()} == {
        name: len(counts) for name, counts in tally_day(events(DAY), lens, BINS).items()
    }


def test_tallies_add_up_and_survive_a_file(lens: Lens) -> None:
    one, two = tally_day(events(DAY), lens, BINS), tally_day(events(DAY[:2]), lens, BINS)
    both = tally_day(pa.concat_tables([events(DAY), events(DAY[:2], day=MONDAY)]), lens, BINS)
    total = add([one, two])
    for name in ("events", "event_type", "price", "category", "taste_sum"):
        assert total[name].tolist() == both[name].tolist(), name
    back = from_plain(plain(one))
    assert all(back[name] == pytest.approx(one[name], abs=1e-6) for name in one)


def test_bins_are_cut_from_the_reference_and_survive_a_file(lens: Lens) -> None:
    bins = cut_bins([events([{"item": "tea", "price": float(price)} for price in range(100)])], lens)
    assert bins.event_types == ("view",)
    assert len(bins.price) == 9
    assert Bins.from_plain(bins.plain()).price.tolist() == bins.price.tolist()


def shop_days(lens: Lens, count: int, *, seed: int = 0, busy: float = 1.0) -> list[tuple[date, Tally]]:
    """Days of about 60 visits, twice as many on Sundays."""
    rng = np.random.default_rng(seed)
    found = []
    for day in days_between(MONDAY, MONDAY + timedelta(days=count)):
        visits = rng.poisson(60 * busy * (2 if day.weekday() == 6 else 1))
        rows = [
            {
                "user": ["ann", "bob"][rng.integers(2)],
                "item": ["tea", "milk", "soap"][rng.integers(3)],
                "price": float(rng.integers(1, 9)),
                "session": str(visit),
                "hour": int(rng.integers(24)),
            }
            for visit in range(visits)
        ]
        found.append((day, tally_day(events(rows, day=day), lens, BINS)))
    return found


def watched(lens: Lens, later: list[tuple[date, Tally]]) -> tuple[Reference, list[Window]]:
    reference = Reference.of(shop_days(lens, 56))
    return reference, judge_windows(later, reference, LIMITS, bounds={})


def test_busy_sundays_are_no_drift_and_a_busy_monday_is(lens: Lens) -> None:
    later = shop_days(lens, 43, seed=1)
    assert later[-1][0].weekday() == 0
    _, windows = watched(lens, later)
    assert [window.day for window in windows if "sessions" in window.alarms] == []
    busy = shop_days(lens, 43, seed=1, busy=3.0)
    _, windows = watched(lens, [*later[:-1], busy[-1]])
    assert windows[-1].judged["sessions"].cause == "window"


def test_a_drift_that_lasts_goes_on_alarming_since_it_is_not_learnt_from(lens: Lens) -> None:
    quiet, busy = shop_days(lens, 50, seed=1), shop_days(lens, 50, seed=2, busy=4.0)
    _, windows = watched(lens, [*quiet[:35], *busy[35:]])
    assert sum(window.judged["sessions"].cause is not None for window in windows[35:]) >= 12


def test_a_day_without_events_is_beyond_the_bound_by_hand(lens: Lens) -> None:
    empty = (MONDAY, tally_day(EVENTS.empty_table(), lens, BINS))
    _, windows = watched(lens, [empty])
    assert {name: windows[0].judged[name].cause for name in windows[0].alarms} == {"sessions": "bound"}


def test_bounds_by_setting_take_the_place_of_the_declared(lens: Lens) -> None:
    reference = Reference.of(shop_days(lens, 28))
    later = shop_days(lens, 1, seed=3)
    strict = judge_windows(later, reference, LIMITS, bounds={"hours": 0.01})
    assert judge_windows(later, reference, LIMITS, bounds={})[0].alarms == []
    assert strict[0].alarms == ["hours"]


def test_a_day_that_has_not_had_its_evening_is_not_whole(lens: Lens) -> None:
    reference = Reference.of(shop_days(lens, 28))
    assert is_whole(shop_days(lens, 1)[0][1], reference)
    noon = tally_day(events([{"item": "tea", "hour": 11}]), lens, BINS)
    assert not is_whole(noon, reference)


def test_the_verdict_names_what_alarms_and_the_gauges_follow(lens: Lens) -> None:
    class Bundle:
        sha256 = "ab" * 32
        cutoff = datetime(2024, 1, 1, tzinfo=UTC)

    later = [*shop_days(lens, 40, seed=1)]
    reference, windows = watched(lens, [*later, (date(2024, 2, 10), shop_days(lens, 1, busy=6.0)[0][1])])
    statistics = statistics_of(windows, {}, Bundle)  # type: ignore[arg-type]  # of a bundle it reads these two
    assert (statistics["verdict"], statistics["alarms"]) == ("drift", ["sessions"])
    assert statistics["why"].startswith("drift: sessions ")
    assert statistics["alarmed_in_a_row"] == 1
    gauges = {(one.name, one.labels.get("measure")): one.value for one in samples_of(windows, {}, statistics)}
    assert gauges["basketweave_drift_alarm", "sessions"] == 1
    assert gauges["basketweave_drift_alarm", "hours"] == 0
    page = render_page(
        project="<b>shop</b>",
        as_of=datetime(2024, 2, 11, tzinfo=UTC),
        statistics=statistics,
        windows=windows,
        reference=reference,
        run={},
        then={},
        absent={"norm_psi": "no bundle served before this one"},
    )
    assert "&lt;b&gt;shop&lt;/b&gt;" in page
    assert "Something has drifted: sessions " in page
    assert "no bundle served before this one" in page
    assert "http" not in page.replace("http-equiv", "")
