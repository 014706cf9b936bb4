"""Ratings are a column of a log that has them, and of no other."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from shop_log import Shop, column, events_of

from components.core.errors import ContractError
from components.core.schemas import EVENTS, RATED_EVENTS

RATED = "user_id,item_id,event_type,timestamp,rating\n"


def schemas(artifact) -> list:
    return [pq.read_schema(path) for path in artifact.partition_paths()]


def test_a_log_with_ratings_keeps_them(shop):
    shop.log(RATED + "u,a,rating,2024-05-01T10:00,4.5\nu,b,rating,2024-05-01T11:00,0\nu,c,purchase,2024-05-01T12:00,\n")
    artifact = shop.ingest()
    assert column(events_of(artifact), "rating") == [4.5, 0, None]
    assert schemas(artifact) == [RATED_EVENTS]


def test_a_log_without_ratings_has_no_such_column_and_the_ids_that_it_had(shop):
    shop.log("user_id,item_id,event_type,timestamp\nu,a,rating,2024-05-01T10:00\n")
    artifact = shop.ingest()
    assert schemas(artifact) == [EVENTS]
    # As before the contract had ratings: an id is a hash of the other columns.
    assert column(events_of(artifact), "event_id") == ["ad05565cf44829caebc87c1b3e66a01d"]


def test_two_ratings_that_differ_are_two_events(shop):
    shop.log(RATED + "u,a,rating,2024-05-01T10:00,4\nu,a,rating,2024-05-01T10:00,5\nu,a,rating,2024-05-01T10:00,5\n")
    assert sorted(column(events_of(shop.ingest()), "rating")) == [4, 5]


@pytest.mark.parametrize(("given", "reason"), [("good", "rating is not a number"), ("inf", "rating is infinite")])
def test_a_rating_that_is_no_number_is_put_aside(shop, given, reason):
    shop.log(RATED + f"u,a,rating,2024-05-01T10:00,{given}\nu,b,rating,2024-05-01T11:00,3\n")
    artifact = shop.ingest()
    assert column(artifact.table("rejects.parquet").to_pylist(), "reason") == [reason]
    assert column(events_of(artifact), "item_id") == ["b"]


def test_a_misspelt_rating_is_named(shop):
    shop.log("user_id,item_id,event_type,timestamp,raiting\nu,a,rating,2024-05-01T10:00,3\n")
    with pytest.raises(ContractError, match="Did you mean 'rating'"):
        shop.ingest()


def ingest_day(shop: Shop, day: str, text: str):
    shop.log(text, name=f"{day}.csv")
    return shop.ingest(day=day)


def test_a_late_rating_reopens_its_day_as_if_it_had_come_in_time(shop, tmp_path_factory):
    first, second = "2024-05-01", "2024-05-02"
    plain = "user_id,item_id,event_type,timestamp\n" + f"u,a,purchase,{first}T10:00\n"
    ingest_day(shop, first, plain)
    late = f"u,a,rating,{first}T12:00,5\n"
    after = ingest_day(shop, second, RATED + late + f"u,b,rating,{second}T10:00,2\n")
    assert column(events_of(after), "item_id") == ["a", "a", "b"]
    assert [row.get("rating") for row in events_of(after)] == [None, 5, 2]
    assert after.manifest.statistics["late_rows"] == {first: 1}
    again = ingest_day(shop, first, plain)
    assert [row.get("rating") for row in events_of(again)] == [None, 5, 2]
