"""Sessions are cut at silence; days are replaced alone; artifacts are reused only while the table is theirs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from shop_log import column, events_of

from components.core.artifact import Artifact
from components.core.errors import ContractError

HEADER = "user_id,item_id,event_type,timestamp\n"


def minutes(*times: str, user: str = "u") -> str:
    return "".join(f"{user},i{number},view,{time}\n" for number, time in enumerate(times))


def test_a_silence_longer_than_the_gap_begins_a_session(shop):
    shop.log(
        HEADER
        + minutes("2024-05-01T10:00", "2024-05-01T10:30", "2024-05-01T11:00:01")
        + minutes("2024-05-01T10:10", user="v")
    )
    sessions = {}
    for row in events_of(shop.ingest()):
        sessions.setdefault(row["session_id"], []).append((row["user_id"], row["item_id"]))
    assert sorted(sessions.values()) == [[("u", "i0"), ("u", "i1")], [("u", "i2")], [("v", "i0")]]


def test_the_gap_is_a_setting(shop):
    shop.log(HEADER + minutes("2024-05-01T10:00", "2024-05-01T10:30"))
    shop.source["session_gap_minutes"] = 29
    assert len(set(column(events_of(shop.ingest()), "session_id"))) == 2


def test_given_sessions_stay_and_only_missing_ones_are_cut(shop):
    shop.log(
        "user_id,item_id,event_type,timestamp,session_id\n"
        "u,a,view,2024-05-01T10:00,given\nu,b,view,2024-05-01T10:01,\n,c,view,2024-05-01T10:02,anonymous\n"
    )
    sessions = column(events_of(shop.ingest()), "session_id")
    assert sessions[0] == "given"
    assert sessions[1] not in (None, "given")
    assert sessions[2] == "anonymous"


def test_a_day_ingested_alone_continues_the_visit_that_midnight_cut(shop):
    late, early, noon = "2024-05-01T23:50", "2024-05-02T00:10", "2024-05-02T12:00"
    shop.log(HEADER + minutes(late, early, noon))
    whole = column(events_of(shop.ingest()), "session_id")
    assert whole[0] == whole[1] != whole[2]
    shop.log(HEADER + minutes(late), name="1.csv")
    shop.ingest(day="2024-05-01")
    shop.log(HEADER + f"u,i1,view,{early}\nu,i2,view,{noon}\n", name="2.csv")
    assert column(events_of(shop.ingest(day="2024-05-02")), "session_id") == whole


def test_a_day_is_replaced_and_the_others_stay(shop):
    shop.log(
        HEADER
        + minutes("2024-05-01T10:00", "2024-05-02T10:00", "2024-05-03T10:00")
        + "u,x,view,2024-05-02T11:00\n"
        + ",y,view,2024-05-02T11:00\n"
    )
    before = shop.ingest()
    shop.log(HEADER + "u,corrected,view,2024-05-02T12:00\nu,other day,view,2024-05-03T12:00\n", name="late.csv")
    after = shop.ingest(day="2024-05-02")
    assert column(events_of(before), "item_id") == ["i0", "i1", "x", "i2"]
    assert column(events_of(after), "item_id") == ["i0", "corrected", "i2"]
    assert before.table("rejects.parquet").num_rows == 1
    assert after.table("rejects.parquet").num_rows == 0
    assert after.manifest.statistics["left_out"] == {"other_days": 1, "after_as_of": 0}
    assert after.as_of == before.as_of == datetime(2024, 5, 4, tzinfo=UTC)


def test_rejects_of_other_days_stay_when_a_day_is_replaced(shop):
    shop.log(HEADER + minutes("2024-05-01T10:00", "2024-05-02T10:00") + ",y,view,2024-05-01T11:00\n")
    shop.ingest()
    shop.log(HEADER + "u,new,view,2024-05-02T12:00\n,z,view,2024-05-02T13:00\n", name="late.csv")
    rejects = shop.ingest(day="2024-05-02").table("rejects.parquet").to_pylist()
    assert [row["day"].isoformat() for row in rejects] == ["2024-05-01", "2024-05-02"]


def test_a_day_that_the_log_lacks_changes_nothing(shop):
    shop.log(HEADER + minutes("2024-05-01T10:00"))
    shop.ingest()
    with pytest.raises(ContractError, match="no usable event on 2024-05-09"):
        shop.ingest(day="2024-05-09")
    assert column(events_of(shop.ingest()), "item_id") == ["i0"]


def test_as_of_hides_later_events_and_loses_none(shop):
    shop.log(HEADER + minutes("2024-05-01T10:00", "2024-05-02T10:00", "2024-05-02T14:00", "2024-05-03T10:00"))
    then = shop.ingest(as_of=datetime(2024, 5, 2, 12, tzinfo=UTC))
    assert column(events_of(then), "item_id") == ["i0", "i1"]
    assert then.as_of == datetime(2024, 5, 2, 12, tzinfo=UTC)
    assert then.manifest.statistics["left_out"] == {"other_days": 0, "after_as_of": 2}
    shop.log(HEADER + "u,next,view,2024-05-04T10:00\n", name="4.csv")
    assert column(events_of(shop.ingest(day="2024-05-04")), "item_id") == ["i0", "i1", "i2", "i3", "next"]


def test_an_unchanged_log_is_reused(shop):
    shop.log(HEADER + minutes("2024-05-01T10:00"))
    assert not shop.execute().is_reused
    assert shop.execute().is_reused
    assert not shop.execute(day="2024-05-01").is_reused
    assert shop.execute(day="2024-05-01").is_reused


def test_an_ingest_is_not_reused_after_another_wrote_the_table(shop):
    first, second = HEADER + minutes("2024-05-01T10:00"), HEADER + "u,corrected,view,2024-05-01T12:00\n"
    shop.log(first)
    original = shop.ingest()
    shop.log(second)
    shop.ingest(day="2024-05-01")
    shop.log(first)
    again = shop.execute()
    assert not again.is_reused
    assert again.ref.sha256 == original.manifest.content_sha256
    shop.log(HEADER + "u,next,view,2024-05-02T10:00\n")
    assert column(events_of(shop.ingest(day="2024-05-02")), "item_id") == ["i0", "next"]


def test_two_versions_of_a_day_alternate_and_the_table_follows(shop):
    versions = [HEADER + f"u,{name},view,2024-05-01T10:00\n" for name in ("one", "two")]
    for number in (0, 1, 0):
        shop.log(versions[number])
        shop.ingest(day="2024-05-01")
    shop.log(HEADER + "u,next,view,2024-05-02T10:00\n")
    assert column(events_of(shop.ingest(day="2024-05-02")), "item_id") == ["one", "next"]


def test_equal_logs_give_equal_hashes_whatever_the_order_of_rows(shop):
    rows = [f"u{n},i{n % 3},view,2024-05-01T10:{n:02d}\n" for n in range(20)]
    shop.log(HEADER + "".join(rows))
    one = shop.execute()
    shop.log(HEADER + "".join(reversed(rows)))
    other = shop.execute()
    assert not other.is_reused
    assert isinstance(Artifact.open(shop.store, other.ref.uri), Artifact)
    assert other.ref.sha256 == one.ref.sha256
