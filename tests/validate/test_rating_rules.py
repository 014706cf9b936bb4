"""A rating outside the shop's scale goes to quarantine, whatever else is right about its row."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from judged_log import HEADER, JudgedShop, days, good_day, good_log, good_row, statuses

from components.core.errors import SettingsError
from components.core.schemas import EVENTS, RATED_EVENTS

FIRST = days(1)[0]


@pytest.fixture
def rated(shop: JudgedShop, monkeypatch: pytest.MonkeyPatch) -> JudgedShop:
    monkeypatch.setattr("judged_log.HEADER", HEADER.replace("price\n", "price,rating\n"))
    return shop


def rated_rows(*ratings: object) -> str:
    return "".join(good_row(number, FIRST, rating=rating) for number, rating in enumerate(ratings))


def test_ratings_outside_the_scale_are_quarantined(rated: JudgedShop) -> None:
    good = [0, 5, 3.5, "", *[4] * 16]
    clean = rated.validate(rated_rows(*good, -0.5, 5.5))
    quarantine = clean.table("quarantine.parquet")
    rows = sorted(quarantine.select(["rating", "reason"]).to_pylist(), key=lambda row: row["rating"])
    assert rows == [
        {"rating": -0.5, "reason": "rating is under 0"},
        {"rating": 5.5, "reason": "rating is over 5"},
    ]
    (path,) = clean.partition_paths()
    assert pq.read_table(path)["rating"].null_count == 1
    assert statuses(clean)["events: rating: Within"] == "quarantined"


def test_the_scale_is_the_shops_own(rated: JudgedShop) -> None:
    rated.validation = {"min_rating": 1, "max_rating": 10}
    clean = rated.validate(rated_rows(*[7] * 19, 0.5))
    assert clean.table("quarantine.parquet")["reason"].to_pylist() == ["rating is under 1"]


def test_a_scale_needs_two_ends(rated: JudgedShop) -> None:
    rated.validation = {"min_rating": 5}
    with pytest.raises(SettingsError, match="max_rating must be above min_rating"):
        _ = rated.settings


def test_a_log_without_ratings_is_not_asked_for_them(shop: JudgedShop) -> None:
    clean = shop.validate(good_log())
    assert not any("rating" in name for name in statuses(clean))
    assert {pq.read_schema(path) == EVENTS for path in clean.partition_paths()} == {True}
    assert "rating" not in clean.table("quarantine.parquet").column_names


def test_days_with_and_without_ratings_stand_side_by_side(shop: JudgedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = days(3)
    shop.validate(good_day(first), day=first.isoformat())
    monkeypatch.setattr("judged_log.HEADER", HEADER.replace("price\n", "price,rating\n"))
    rows = "".join(good_row(number, second, rating=9 if number == 0 else 4) for number in range(20))
    clean = shop.validate(rows, day=second.isoformat())
    assert clean.manifest.statistics["reused_days"] == 1
    assert clean.table("quarantine.parquet")["rating"].to_pylist() == [9]
    monkeypatch.setattr("judged_log.HEADER", HEADER)
    after = shop.validate(good_day(third), day=third.isoformat())
    assert after.manifest.statistics["reused_days"] == 2
    assert after.table("quarantine.parquet")["rating"].to_pylist() == [9]
    assert statuses(after)["events: rating: Within"] == "quarantined"
    assert [pq.read_schema(path) for path in after.partition_paths()] == [EVENTS, RATED_EVENTS, EVENTS]
