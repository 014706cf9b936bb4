"""A daily run judges what changed and takes over the rest."""

from __future__ import annotations

from judged_log import FIRST_DAY, days, good_day, good_log, good_row, statuses


def reused(artifact):
    return artifact.manifest.statistics["reused_days"]


def test_only_the_replaced_day_is_judged_again(shop):
    first = shop.validate(good_log(4) + good_row(99, FIRST_DAY, quantity=0))
    assert reused(first) == 0
    second = days(2)[1]
    after = shop.validate(good_day(second, rows=21) + good_row(99, second, price=0), day=str(second))
    assert reused(after) == 3
    assert after.manifest.rows == 81
    quarantine = after.table("quarantine.parquet").to_pylist()
    assert [(row["day"], row["reason"]) for row in quarantine] == [
        (FIRST_DAY, "quantity is 0 or less"),
        (second, "price is 0 or less"),
    ]
    assert after.manifest.summary.endswith("4 days (3 unchanged) · 28 checks")
    assert statuses(after)["events: quantity: Within"] == "quarantined"


def test_a_day_that_is_taken_over_gives_the_same_artifact(shop, tmp_path_factory):
    from judged_log import JudgedShop

    shop.validate(good_log(3) + good_row(99, FIRST_DAY, quantity=0))
    stepwise = shop.validate(good_day(days(4)[3]), day=str(days(4)[3]))
    whole = JudgedShop(tmp_path_factory.mktemp("whole")).validate(good_log(4) + good_row(99, FIRST_DAY, quantity=0))
    assert reused(stepwise) == 3
    assert stepwise.manifest.content_sha256 == whole.manifest.content_sha256


def test_other_settings_judge_every_day_again(shop):
    shop.validate(good_log(3))
    shop.validation = {"max_quantity": 5}
    assert reused(shop.validate()) == 0


def test_a_new_catalogue_judges_only_the_days_that_it_says_something_else_of(shop):
    shop.validate(good_log(3) + good_row(99, FIRST_DAY, item_id="new"))
    shop.items.append("new,New,c0,1")
    assert reused(shop.validate(good_log(3) + good_row(99, FIRST_DAY, item_id="new"))) == 2


def test_an_item_that_turns_out_to_be_no_product_is_put_aside(shop):
    lines = good_log(2)
    assert shop.validate(lines).manifest.rows == 40
    shop.items[6] = "i6,Item 6,c0,3,false"
    assert shop.validate(lines).manifest.statistics["quarantined_by_reason"] == {"item is not a product": 4}


def test_a_lost_partition_is_written_again(shop):
    shop.validate(good_log(2))
    shop.store.delete("tables/clean_events")
    again = shop.validate()
    assert reused(again) == 0
    assert again.manifest.rows == 40


def test_a_late_row_has_its_day_and_its_arrival_judged_and_no_other(shop, tmp_path_factory):
    from judged_log import JudgedShop

    shop.validate(good_log(3))
    fourth = days(4)[3]
    late = good_row(77, FIRST_DAY, quantity=0)
    after = shop.validate(good_day(fourth) + late, day=str(fourth))
    assert reused(after) == 2
    assert [row["day"] for row in after.table("quarantine.parquet").to_pylist()] == [FIRST_DAY]
    whole = JudgedShop(tmp_path_factory.mktemp("whole")).validate(good_log(4) + late)
    assert after.manifest.content_sha256 == whole.manifest.content_sha256
