"""Any shop's log in the contract: formats, casts, rejects, names."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_log import events_of

from components.core.errors import ContractError, SettingsError
from components.core.schemas import CATALOG, EVENTS

CSV = """user_id,item_id,event_type,timestamp,session_id,quantity,price
u1,a,view,2024-05-01T10:00:00Z,s1,,
u1,a,purchase,2024-05-01T12:00:00+02:00,s1,2,3.5
,b,cart,2024-05-02 09:00:00,s2,1,10
"""
JSONL = """{"user_id":"u1","item_id":"a","event_type":"view","timestamp":"2024-05-01T10:00:00Z","session_id":"s1"}
{"user_id":"u1","item_id":"a","event_type":"purchase","timestamp":1714557600,"session_id":"s1","quantity":2,"price":3.5}
{"item_id":"b","event_type":"cart","timestamp":"1714640400000","session_id":"s2","quantity":1,"price":"10"}
"""


def plain(artifact: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in events_of(artifact)]


def expected_rows(ids: list[str]) -> list[tuple[Any, ...]]:
    first = datetime(2024, 5, 1, 10, tzinfo=UTC)
    return [
        (ids[0], "u1", "a", "view", first, "s1", None, None),
        (ids[1], "u1", "a", "purchase", first, "s1", 2.0, 3.5),
        (ids[2], None, "b", "cart", datetime(2024, 5, 2, 9, tzinfo=UTC), "s2", 1.0, 10.0),
    ]


def parquet_log(path: Any) -> None:
    times = [datetime(2024, 5, 1, 10), datetime(2024, 5, 1, 10), datetime(2024, 5, 2, 9)]  # noqa: DTZ001
    pq.write_table(
        pa.table(
            {
                "user_id": ["u1", "u1", None],
                "item_id": ["a", "a", "b"],
                "event_type": ["view", "purchase", "cart"],
                "timestamp": pa.array(times, pa.timestamp("ns")),
                "session_id": ["s1", "s1", "s2"],
                "quantity": pa.array([None, 2, 1], pa.int64()),
                "price": [float("nan"), 3.5, 10.0],
            }
        ),
        path,
    )


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "parquet"])
def test_every_format_gives_the_same_events(shop, form):
    path = shop.folder / f"log.{form}"
    if form == "parquet":
        parquet_log(path)
    elif form == "csv.gz":
        path.write_bytes(gzip.compress(CSV.encode()))
    else:
        path.write_text(CSV if form == "csv" else JSONL)
    shop.source["events"] = str(path)
    artifact = shop.ingest()
    rows = plain(artifact)
    assert sorted(rows, key=str) == sorted(expected_rows(sorted_ids(rows)), key=str)
    assert artifact.as_of == datetime(2024, 5, 3, tzinfo=UTC)
    assert pq.read_schema(artifact.partition_paths()[0]).equals(EVENTS)
    assert artifact.table("catalog.parquet").schema.equals(CATALOG)


def sorted_ids(rows: list[tuple[Any, ...]]) -> list[str]:
    by_kind = {row[3]: row[0] for row in rows}
    return [by_kind[kind] for kind in ("view", "purchase", "cart")]


def test_equal_rows_have_equal_ids_in_every_format(shop):
    shop.log(CSV)
    of_csv = plain(shop.ingest())
    shop.log(JSONL, name="events.jsonl")
    assert plain(shop.ingest()) == of_csv


def test_rows_that_cannot_be_cast_are_kept_with_their_reason(shop):
    shop.log(
        "user_id,item_id,event_type,timestamp,quantity\n"
        "u1,a,view,2024-05-01T10:00:00Z,1\n"
        "u1,,view,2024-05-01T10:00:00Z,1\n"
        "u1,a,,yesterday,1\n"
        ",a,view,2024-05-01T10:00:00Z,1\n"
        "u1,a,view,,1\n"
        "u1,a,view,2024-05-01T10:00:00Z,two\n"
        "u1,a,view,2024-05-01T10:00:00Z,inf\n"
        "u1,a,view,20240501,1\n"
        "u1,a,view\n"
        "u1,a,view,2024-05-01T10:00:00Z,1,1,1\n"
    )
    artifact = shop.ingest()
    assert artifact.manifest.statistics["rows"] == {
        "source": 10,
        "kept": 1,
        "duplicates": 0,
        "rejected": 9,
        "rejected_without_day": 5,
    }
    assert artifact.manifest.statistics["rejected_by_reason"] == {
        "line cannot be read: missing columns": 1,
        "line cannot be read: too many columns": 1,
        "neither user_id nor session_id": 1,
        "no event_type; timestamp is not a time": 1,
        "no item_id": 1,
        "no timestamp": 1,
        "quantity is infinite": 1,
        "quantity is not a number": 1,
        "timestamp is not a time": 1,
    }
    rejects = artifact.table("rejects.parquet").to_pylist()
    assert '"timestamp":"20240501"' in next(row["row"] for row in rejects if row["reason"] == "timestamp is not a time")
    assert "u1,a,view,2024-05-01T10:00:00Z,1,1,1" in [row["row"] for row in rejects]


def test_broken_json_lines_are_rejected_one_by_one(shop):
    shop.log(JSONL + "{broken\n[1, 2]\n", name="events.jsonl")
    rejects = shop.ingest().table("rejects.parquet").to_pylist()
    assert sorted(row["row"] for row in rejects) == ["[1, 2]", "{broken"]


def test_duplicates_are_dropped_and_counted_by_id_or_by_all_columns(shop):
    shop.log(
        "event_id,user_id,item_id,event_type,timestamp\n"
        "e1,u1,a,view,2024-05-01T10:00:00Z\n"
        "e1,u1,b,view,2024-05-01T11:00:00Z\n"
        ",u1,c,view,2024-05-01T12:00:00Z\n"
        ",u1,c,view,2024-05-01T12:00:00Z\n"
        ",u1,c,view,2024-05-01T12:00:01Z\n"
    )
    artifact = shop.ingest()
    assert [row[2] for row in plain(artifact)] == ["a", "c", "c"]
    assert artifact.manifest.statistics["rows"]["duplicates"] == 2


def test_ids_that_pandas_made_floats_are_whole_again(shop):
    table = pa.table(
        {
            "user_id": [13085.0, float("nan")],
            "item_id": [7.0, 8.5],
            "event_type": ["view", "view"],
            "timestamp": ["2024-05-01", "2024-05-01"],
            "session_id": ["s", "t"],
        }
    )
    pq.write_table(table, shop.folder / "log.parquet")
    shop.source["events"] = str(shop.folder / "log.parquet")
    assert sorted((row[1] or "", row[2]) for row in plain(shop.ingest())) == [("", "8.5"), ("13085", "7")]


def test_globs_folders_and_uris_are_read_as_one_log(shop):
    header = "user_id,item_id,event_type,timestamp\n"
    shop.write("logs/1.csv", header + "u1,a,view,2024-05-01\n")
    shop.write("logs/2.csv", "timestamp,user_id,item_id,event_type,colour\n2024-05-02,u2,b,view,red\n")
    shop.source["events"] = str(shop.folder / "logs" / "*.csv")
    from_glob = plain(shop.ingest())
    shop.source["events"] = str(shop.folder / "logs")
    assert [row[2] for row in from_glob] == ["a", "b"]
    assert plain(shop.ingest()) == from_glob
    memory = fsspec.filesystem("memory")
    for name in ("1.csv", "2.csv"):
        memory.pipe_file(f"/shop/{name}", (shop.folder / "logs" / name).read_bytes())
    shop.source["events"] = "memory://shop/*.csv"
    assert plain(shop.ingest()) == from_glob


def test_a_catalogue_keeps_further_columns_as_attributes(shop):
    shop.log(CSV)
    shop.source["catalog"] = str(
        shop.write(
            "catalog.csv",
            "item_id,title,price,colour,is_product\na,Apple,1.5,red,\nb, Bag ,x,,no\na,Apple,1.5,red,\n,Nameless,,,\n",
        )
    )
    artifact = shop.ingest()
    assert artifact.table("catalog.parquet").to_pylist() == [
        {
            "item_id": "a",
            "title": "Apple",
            "category": None,
            "brand": None,
            "price": 1.5,
            "attributes": [("colour", "red")],
        },
        {
            "item_id": "b",
            "title": "Bag",
            "category": None,
            "brand": None,
            "price": None,
            "attributes": [("is_product", "false")],
        },
    ]
    assert artifact.manifest.statistics["catalog"] == {
        "source": 4,
        "kept": 2,
        "duplicates": 1,
        "rejected": 1,
        "prices_not_a_number": 1,
    }


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (
            "user_id,itemid,event_type,timestamp",
            "has a column 'itemid', which the contract does not know. Did you mean 'item_id'?",
        ),
        ("user_id,product_id,event_type,timestamp", "has no column 'item_id'; the nearest is 'product_id'"),
        ("user_id,item_id,event_type,timestamp,quantitiy", "Did you mean 'quantity'?"),
        ("item_id,event_type,timestamp", "neither a column 'user_id' nor 'session_id'"),
        ("user_id,user_id,event_type,timestamp", "has the column 'user_id' twice"),
    ],
)
def test_wrong_columns_name_the_nearest_right_one(shop, header, sentence):
    shop.log(f"{header}\n{','.join('1' for _ in header.split(','))}\n")
    with pytest.raises(ContractError) as error:
        shop.ingest()
    assert sentence in str(error.value)


def test_a_column_that_resembles_nothing_is_left_out_and_named(shop):
    shop.log("user_id,item_id,event_type,timestamp,store\nu1,a,view,2024-05-01,7\n")
    assert shop.ingest().manifest.statistics["ignored_columns"] == ["store"]


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ("nowhere.csv", "which does not exist"),
        (".", "which is a folder without a parquet, CSV or JSONL file"),
    ],
)
def test_a_wrong_path_is_one_sentence(shop, events, sentence):
    (shop.folder / "empty").mkdir()
    shop.source["events"] = str(shop.folder / ("empty" if events == "." else events))
    with pytest.raises(SettingsError) as error:
        shop.ingest()
    assert sentence in str(error.value)


def test_a_log_without_one_usable_row_stops_and_says_why(shop):
    shop.log("user_id,item_id,event_type,timestamp\nu1,a,view,soon\nu2,a,view,later\n")
    with pytest.raises(ContractError) as error:
        shop.ingest()
    assert "Not one of the log's 2 rows can be used; 2 because: timestamp is not a time" in str(error.value)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("user_id,product_id,event_type,timestamp,price", "2.csv has no column 'item_id', which other files"),
        ("user_id,item_id,event_type,timestamp,unit_price", "did it become 'unit_price'?"),
    ],
)
def test_a_file_that_renames_a_column_is_named(shop, header, sentence):
    shop.write("logs/1.csv", "user_id,item_id,event_type,timestamp,price\nu1,a,view,2024-05-01,1\n")
    shop.write("logs/2.csv", f"{header}\nu1,b,view,2024-05-02,1\n")
    shop.source["events"] = str(shop.folder / "logs")
    with pytest.raises(ContractError) as error:
        shop.ingest()
    assert sentence in str(error.value)


def test_older_files_may_lack_an_optional_column(shop):
    shop.write("logs/1.csv", "user_id,item_id,event_type,timestamp\nu1,a,view,2024-05-01\n")
    shop.write("logs/2.csv", "user_id,item_id,event_type,timestamp,price\nu1,b,view,2024-05-02,1\n")
    shop.source["events"] = str(shop.folder / "logs")
    assert [row[7] for row in plain(shop.ingest())] == [None, 1.0]
