"""Late rows re-open their day and no other, and the table ends as if everything had come in time."""

from __future__ import annotations

from shop_log import Shop, column, events_of

HEADER = "user_id,item_id,event_type,timestamp\n"
FIRST, SECOND, THIRD = "2024-05-01", "2024-05-02", "2024-05-03"


def rows(day: str, *items: str, hour: int = 10) -> str:
    return "".join(f"u,{item},view,{day}T{hour}:{number:02d}\n" for number, item in enumerate(items))


def ingest_day(shop: Shop, day: str, text: str):
    shop.log(HEADER + text, name=f"{day}.csv")
    return shop.ingest(day=day)


def partitions(artifact) -> dict[str, str]:
    return {part.day.isoformat(): part.sha256 for part in artifact.manifest.partitions}


def three_days(shop: Shop, *, late: str):
    """Two good days, then a third whose file has `late` rows too; the artifacts after the second and the third."""
    ingest_day(shop, FIRST, rows(FIRST, "a", "b"))
    before = ingest_day(shop, SECOND, rows(SECOND, "c"))
    return before, ingest_day(shop, THIRD, rows(THIRD, "d") + late)


def test_late_rows_reopen_their_day_alone(shop):
    before, after = three_days(shop, late=rows(FIRST, "x", "y", hour=12))
    assert column(events_of(after), "item_id") == ["a", "b", "x", "y", "c", "d"]
    changed = {day for day, sha256 in partitions(after).items() if partitions(before).get(day) != sha256}
    assert changed == {FIRST, THIRD}
    assert after.manifest.statistics["late_rows"] == {FIRST: 2}
    assert after.manifest.statistics["left_out"]["other_days"] == 0
    assert "3 days · 2 late rows re-opened 1 days" in after.manifest.summary


def test_the_table_ends_as_if_all_had_come_in_time(shop, tmp_path_factory):
    _, stepwise = three_days(shop, late=rows(FIRST, "x", hour=12) + rows(SECOND, "y", hour=9))
    whole = Shop(tmp_path_factory.mktemp("whole"))
    whole.log(
        HEADER + rows(FIRST, "a", "b") + rows(FIRST, "x", hour=12) + rows(SECOND, "y", hour=9) + rows(SECOND, "c")
        + rows(THIRD, "d")
    )  # fmt: skip
    assert stepwise.manifest.content_sha256 == whole.ingest().manifest.content_sha256


def test_the_same_day_again_adds_nothing(shop):
    _, after = three_days(shop, late=rows(FIRST, "x"))
    again = shop.ingest(day=THIRD)
    assert again.manifest.content_sha256 == after.manifest.content_sha256
    assert again.manifest.statistics["late_rows"] == {}


def test_a_day_that_is_ingested_again_keeps_what_came_late(shop):
    three_days(shop, late=rows(FIRST, "x", hour=12))
    after = ingest_day(shop, FIRST, rows(FIRST, "a", "corrected"))
    assert column(events_of(after), "item_id") == ["a", "corrected", "x", "c", "d"]


def test_a_corrected_file_takes_its_late_rows_back(shop):
    before, _ = three_days(shop, late=rows(FIRST, "x", hour=12))
    after = ingest_day(shop, THIRD, rows(THIRD, "d"))
    assert column(events_of(after), "item_id") == ["a", "b", "c", "d"]
    assert partitions(after)[FIRST] == partitions(before)[FIRST]
    assert after.manifest.statistics["late_rows"] == {FIRST: -1}


def test_a_row_that_its_day_has_is_not_late(shop):
    before, after = three_days(shop, late=rows(FIRST, "a", "b"))
    assert partitions(after)[FIRST] == partitions(before)[FIRST]
    assert after.manifest.statistics["left_out"]["other_days"] == 2


def test_a_late_row_that_its_day_brings_after_all_stands_there_once(shop):
    three_days(shop, late=rows(FIRST, "x", hour=12))
    after = ingest_day(shop, FIRST, rows(FIRST, "a", "b") + rows(FIRST, "x", hour=12))
    assert column(events_of(after), "item_id") == ["a", "b", "x", "c", "d"]
    # It is the day's own now: the file that brought it late may lose it.
    after = ingest_day(shop, THIRD, rows(THIRD, "d"))
    assert column(events_of(after), "item_id") == ["a", "b", "x", "c", "d"]


def test_days_that_the_table_lacks_and_later_ones_wait_for_their_own_run(shop):
    ingest_day(shop, SECOND, rows(SECOND, "c"))
    after = ingest_day(shop, THIRD, rows(THIRD, "d") + rows(FIRST, "a") + rows("2024-05-04", "e"))
    assert column(events_of(after), "item_id") == ["c", "d"]
    assert after.manifest.statistics["left_out"]["other_days"] == 2


def test_a_late_row_continues_the_visit_in_which_it_happened(shop):
    ingest_day(shop, FIRST, f"u,a,view,{FIRST}T10:00\nu,b,view,{FIRST}T10:50\n")
    assert len(set(column(events_of(shop.ingest(day=FIRST)), "session_id"))) == 2
    after = ingest_day(shop, SECOND, rows(SECOND, "c") + f"u,x,view,{FIRST}T10:25\n")
    first_day = [row["session_id"] for row in events_of(after) if row["timestamp"].date().isoformat() == FIRST]
    assert len(first_day) == 3
    assert len(set(first_day)) == 1


def test_a_whole_ingest_forgets_what_came_late(shop):
    three_days(shop, late=rows(FIRST, "x", hour=12))
    shop.log(HEADER + rows(FIRST, "a") + rows(SECOND, "c"), name="whole.csv")
    shop.ingest()
    assert column(events_of(ingest_day(shop, FIRST, rows(FIRST, "a"))), "item_id") == ["a", "c"]
