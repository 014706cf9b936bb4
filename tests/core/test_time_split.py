"""How a log is cut in time, and how times are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from components.core.clock import end_of_day, parse_time
from components.core.errors import SettingsError
from components.core.sections import SplitSettings
from components.core.split import TimeSplit, Window, cutoff_folder

AS_OF = datetime(2018, 1, 1, tzinfo=UTC)


def at(month: int, day: int) -> datetime:
    return datetime(2017, month, day, tzinfo=UTC)


@pytest.fixture
def split() -> TimeSplit:
    return TimeSplit.of(AS_OF, SplitSettings(window_days=7, training_windows=2))


def test_windows_follow_each_other_without_gap_back_from_as_of(split: TimeSplit) -> None:
    assert split.holdout == Window(start=at(12, 25), end=AS_OF)
    assert split.validation == Window(start=at(12, 18), end=at(12, 25))
    assert split.training == (Window(start=at(12, 4), end=at(12, 11)), Window(start=at(12, 11), end=at(12, 18)))
    assert split.cutoff == at(12, 25)


def test_features_and_graphs_are_taken_where_a_window_starts(split: TimeSplit) -> None:
    starts = (at(12, 4), at(12, 11), at(12, 18), at(12, 25))
    assert split.graph_cutoffs == starts
    assert split.snapshot_times == (*starts, AS_OF)


def test_a_cutoffs_folder_is_named_by_its_moment() -> None:
    assert cutoff_folder(at(12, 4)) == "cutoff=20171204T000000"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2017-12-31", datetime(2017, 12, 31, tzinfo=UTC)),
        ("2017-12-31T06:30", datetime(2017, 12, 31, 6, 30, tzinfo=UTC)),
        ("2017-12-31T01:00:00+02:00", datetime(2017, 12, 30, 23, tzinfo=UTC)),
    ],
)
def test_times_without_a_zone_are_utc_and_others_are_converted(text: str, moment: datetime) -> None:
    parsed = parse_time(text)
    assert parsed == moment
    assert parsed.utcoffset() == timedelta(0)


def test_what_is_no_time_is_said_with_an_example() -> None:
    with pytest.raises(SettingsError, match=r"'31\.12\.2017' is not a time\. Write an ISO date"):
        parse_time("31.12.2017")


def test_a_finished_log_is_judged_as_of_the_midnight_after_its_last_event() -> None:
    assert end_of_day(datetime(2017, 12, 31, 0, 0, tzinfo=UTC)) == AS_OF
    assert end_of_day(datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)) == AS_OF
