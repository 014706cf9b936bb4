"""The examples of docs/data-contract.md work as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shop_log import events_of

from components.ingest.profile import profile_names

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-contract.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("language", "name"), [("csv", "events.csv"), ("json", "events.jsonl")])
def test_the_example_logs_are_in_the_contract(shop, language, name):
    shop.log(blocks(language)[0], name=name)
    rows = events_of(shop.ingest())
    assert [(row["user_id"], row["item_id"], row["event_type"], row["price"]) for row in rows] == [
        ("u1", "a", "view", None),
        ("u1", "a", "purchase", 3.5),
        (None, "b", "cart", 10.0),
    ]


def test_the_example_catalogue_is_in_the_contract(shop):
    shop.log(blocks("csv")[0])
    shop.source["catalog"] = str(shop.write("catalog.csv", blocks("csv")[1]))
    rows = {row["item_id"]: row for row in shop.ingest().table("catalog.parquet").to_pylist()}
    assert rows["a"]["title"] == "Green apple"
    assert dict(rows["a"]["attributes"]) == {"colour": "green"}
    assert dict(rows["b"]["attributes"]) == {"is_product": "false"}


def test_the_example_profile_works(shop):
    (profile,) = blocks("toml")
    shop.source = {"profile": str(shop.write("shop.toml", profile)), "data": str(shop.folder)}
    shop.write(
        "orders/1.csv",
        "customer,sku,ordered_at,order_number,units,total\nc1, ab1,2024-05-01,o1,2,7\n,ab2,2024-05-01,o2,1,1\n",
    )
    shop.write("products.csv", "sku,name,kind,colour\nAB1,FRZN PEAS,food,green\nAB2,POST,shipping,\n")
    artifact = shop.ingest()
    first = next(row for row in events_of(artifact) if row["user_id"] == "c1")
    assert (first["item_id"], first["event_type"], first["price"]) == ("AB1", "purchase", 3.5)
    titles = {row["item_id"]: row["title"] for row in artifact.table("catalog.parquet").to_pylist()}
    assert titles == {"AB1": "Frozen Peas", "AB2": "Post"}
    assert artifact.manifest.statistics["defects"][0]["count"] == 1


def test_every_shipped_profile_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in profile_names())
