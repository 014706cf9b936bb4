"""Single bad rows are put aside with their reason, and every row is accounted for."""

from __future__ import annotations

import pytest
from judged_log import FIRST_DAY, good_log, good_row, statuses

from components.core.schemas import CATALOG, EVENTS


def test_a_good_log_passes_every_check(shop):
    artifact = shop.validate(good_log())
    assert artifact.manifest.statistics["rows"] == {
        "source": 80,
        "kept": 80,
        "duplicates": 0,
        "rejected": 0,
        "quarantined": 0,
    }
    assert artifact.table("quarantine.parquet").num_rows == 0
    found = statuses(artifact)
    assert {name for name, status in found.items() if status != "passed"} == {"catalogue: brand filled"}
    assert len(found) == 28


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_type": "teleport"}, "event_type is not a known kind"),
        ({"quantity": 0}, "quantity is 0 or less"),
        ({"quantity": -3}, "quantity is 0 or less"),
        ({"quantity": 1001}, "quantity is over 1,000"),
        ({"price": 0}, "price is 0 or less"),
        ({"price": 100_001}, "price is over 100,000"),
        ({"item_id": "postage"}, "item is not a product"),
        ({"quantity": 0, "price": -1}, "quantity is 0 or less; price is 0 or less"),
    ],
)
def test_a_bad_row_is_put_aside_with_its_reasons(shop, changes, reason):
    shop.items.append("postage,Postage,,3,false")
    artifact = shop.validate(good_log(1) + good_row(99, FIRST_DAY, **changes))
    (row,) = artifact.table("quarantine.parquet").to_pylist()
    assert (row["event_id"], row["day"], row["reason"]) == ("e0501-99", FIRST_DAY, reason)
    assert artifact.manifest.statistics["rows"]["quarantined"] == 1
    assert artifact.manifest.rows == 20


@pytest.mark.parametrize("changes", [{"quantity": 1000}, {"price": 100_000}, {"quantity": ""}, {"price": ""}])
def test_a_value_at_the_bound_or_missing_stays(shop, changes):
    assert shop.validate(good_log(1) + good_row(99, FIRST_DAY, **changes)).manifest.rows == 21


def test_anonymous_rows_stay(shop):
    assert shop.validate(good_log(1) + good_row(99, FIRST_DAY, user_id="")).manifest.rows == 21


def test_duplicates_and_rejects_of_ingest_are_in_the_sum(shop):
    lines = good_log(1) + good_row(0, FIRST_DAY) + good_row(98, FIRST_DAY, timestamp="soon")
    lines += good_row(99, FIRST_DAY, quantity=0)
    artifact = shop.validate(lines)
    assert artifact.manifest.statistics["rows"] == {
        "source": 23,
        "kept": 20,
        "duplicates": 1,
        "rejected": 1,
        "quarantined": 2,
    }
    assert artifact.manifest.summary.startswith("23 rows = 20 kept + 1 duplicates + 2 quarantined · 1 days")


def test_rows_of_unknown_items_stay_and_are_counted(shop):
    artifact = shop.validate(good_log(1) + good_row(99, FIRST_DAY, item_id="new"))
    assert artifact.manifest.rows == 21
    assert "1 events name items that it lacks" in artifact.path("quality.html").read_text()


def test_non_products_leave_the_clean_catalogue(shop):
    shop.items.append("postage,Postage,,3,no")
    catalog = shop.validate(good_log(1)).table("catalog.parquet")
    assert catalog.schema.equals(CATALOG)
    assert catalog["item_id"].to_pylist() == [f"i{number}" for number in range(7)]


def test_clean_partitions_keep_the_schema_and_the_order(shop):
    import pyarrow.parquet as pq

    table = pq.read_table(shop.validate(good_log(1)).partition_paths()[0])
    assert table.schema.equals(EVENTS)
    times = table["timestamp"].to_pylist()
    assert times == sorted(times)


def test_known_kinds_and_bounds_are_settings(shop):
    shop.validation = {"known_event_types": ["purchase", "teleport"], "max_quantity": 2}
    lines = good_log(1) + good_row(98, FIRST_DAY, event_type="teleport") + good_row(99, FIRST_DAY, quantity=3)
    artifact = shop.validate(lines)
    assert artifact.table("quarantine.parquet")["reason"].to_pylist() == ["quantity is over 2"]


def test_equal_work_gives_equal_hashes(shop, tmp_path_factory):
    from judged_log import JudgedShop

    lines = good_log(3) + good_row(99, FIRST_DAY, quantity=0)
    other = JudgedShop(tmp_path_factory.mktemp("other"))
    assert shop.validate(lines).manifest.content_sha256 == other.validate(lines).manifest.content_sha256
