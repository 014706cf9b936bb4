"""A log that is bad as a whole stops the run, and the user sees why; what is only odd is reported."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from judged_log import FIRST_DAY, days, good_day, good_log, good_row, midnight, statuses

from components.core.errors import ArtifactError, ContractError
from components.core.step import latest


def bad_rows(count: int, day: date, **changes: object) -> str:
    return "".join(good_row(100 + number, day, **changes) for number in range(count))


def test_too_many_bad_rows_in_a_day_stop_the_run(shop):
    with pytest.raises(ContractError) as error:
        shop.validate(good_log(2) + bad_rows(8, FIRST_DAY, quantity=0))
    assert "not 'At most 25% of a day's rows are bad'" in str(error.value)
    assert "worst 2024-05-01: 28.6%" in str(error.value)


def test_a_stopped_run_leaves_its_page_and_no_artifact(shop):
    with pytest.raises(ContractError) as error:
        shop.validate(good_log(2) + bad_rows(8, FIRST_DAY, quantity=0))
    page = str(error.value).split("See ")[1].rstrip(".")
    assert page == shop.store.uri("failed/validate-run_1/quality.html")
    with open(page, encoding="utf-8") as stream:
        assert "This log was refused" in stream.read()
    with pytest.raises(ArtifactError):
        latest(shop.store, "clean")
    assert not shop.store.exists("tables/clean_events/state.json")


def test_bad_rows_up_to_the_bound_are_only_put_aside(shop):
    assert shop.validate(good_log(2) + bad_rows(6, FIRST_DAY, quantity=0)).manifest.rows == 40


def test_too_many_unknown_items_stop_the_run(shop):
    with pytest.raises(ContractError, match="name an item that the catalogue lacks"):
        shop.validate(good_log(2) + bad_rows(2, FIRST_DAY, item_id="new"))


def test_without_a_catalogue_nothing_is_unknown(shop):
    shop.has_catalog = False
    artifact = shop.validate(good_log(2) + bad_rows(5, FIRST_DAY, item_id="new"))
    assert artifact.manifest.rows == 45
    assert not [name for name in statuses(artifact) if "catalogue" in name or "unknown" in name]
    assert "This shop has none" in artifact.path("quality.html").read_text()


def test_a_stale_log_stops_the_run(shop):
    late = midnight(days(2)[-1]) + timedelta(days=5)
    with pytest.raises(ContractError, match="at most 3 days old"):
        shop.validate(good_log(2), as_of=late)
    shop.validation = {"max_staleness_days": 6}
    assert shop.validate(good_log(2), as_of=late).as_of == late


def test_only_the_newest_day_must_be_fresh(shop):
    assert shop.validate(good_log(9)).manifest.rows == 180


def test_one_wrong_time_far_in_the_future_does_not_make_a_log_fresh(shop):
    with pytest.raises(ContractError, match=r"at most 3 days old': it is 3,5\d\d"):
        shop.validate(good_log(3) + good_row(0, date(2034, 1, 1)))


def test_with_as_of_later_events_are_left_out_and_said(shop):
    lines = good_log(3) + good_row(0, date(2034, 1, 1))
    artifact = shop.validate(lines, as_of=midnight(days(4)[-1]))
    assert artifact.manifest.rows == 60
    assert "1 events lie after as_of" in artifact.path("quality.html").read_text()


def test_single_rows_far_from_the_rest_are_put_aside(shop):
    artifact = shop.validate(good_log(3) + good_row(0, date(2004, 1, 1)))
    assert artifact.table("quarantine.parquet")["reason"].to_pylist() == ["timestamp lies far from the rest of the log"]
    assert [part.day for part in artifact.manifest.partitions] == days(3)
    assert artifact.manifest.rows == 60


def test_a_log_in_two_pieces_stops_the_run(shop):
    with pytest.raises(ContractError, match=r"beyond a gap of 30 days or more': it is 0\.25"):
        shop.validate(good_log(3) + good_day(date(2004, 1, 1)))
    shop.validation = {"max_gap_days": 10_000}
    assert shop.validate(good_log(3) + good_day(date(2004, 1, 1))).manifest.rows == 80


def test_too_many_rows_that_cannot_be_cast_stop_the_run(shop):
    with pytest.raises(ContractError, match="25% of the source's rows could not be cast"):
        shop.validate(good_log(1) + bad_rows(10, FIRST_DAY, timestamp="soon"))


def test_a_day_with_unusually_few_or_many_rows_is_reported(shop):
    lines = good_log(5) + good_day(days(6)[-1], rows=1)
    artifact = shop.validate(lines)
    assert statuses(artifact)["days: rows against the recent past"] == "warning"
    assert "2024-05-06: 0.05" in artifact.path("quality.html").read_text()
    assert artifact.manifest.summary.endswith("28 checks, 1 warned")


def test_prices_in_another_unit_are_reported(shop):
    day = days(6)[-1]
    cents = "".join(good_row(number, day, price=100 * (2 + number % 3)) for number in range(20))
    assert statuses(shop.validate(good_log(5) + cents))["days: prices against the recent past"] == "warning"


def test_an_event_id_on_two_days_is_reported(shop):
    artifact = shop.validate(good_log(1))
    assert statuses(artifact)["log: ids across days"] == "passed"
    # Within one whole ingest the second copy is a duplicate; a day that comes alone cannot know.
    second = days(2)[1]
    artifact = shop.validate(good_day(second) + good_row(99, second, event_id="e0501-0"), day=str(second))
    assert statuses(artifact)["log: ids across days"] == "warning"


def test_the_catalogue_is_judged_too(shop):
    shop.items[0] = "i0,,,-5"
    found = statuses(shop.validate(good_log(1)))
    assert found["catalogue: price range"] == "warning"
    assert found["catalogue: brand filled"] == "noted"
    assert found["catalogue: item_id unique"] == "passed"


def test_as_of_of_the_events_is_the_default(shop):
    assert shop.validate(good_log(2)).as_of == datetime(2024, 5, 3, tzinfo=UTC)
