"""Catalogues that break: the log beside them is good."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

from broken_shop import FORMS, QUARANTINED, READ, REFUSED, BrokenInput, broken_catalog, encode, good_items, good_rows

CSV, PARQUET = (encode(good_items(), form) for form in ("csv", "parquet"))


def _write_log(shop) -> None:
    (shop / "events.csv").write_bytes(encode(good_rows(), "csv"))


def _with_folder(shop) -> None:
    _write_log(shop)
    (shop / "catalog.csv").mkdir()


def _in_every_form() -> Iterator[BrokenInput]:
    for form in FORMS:
        yield broken_catalog(
            "an item twice, with two titles",
            encode([*good_items(), {**good_items()[0], "title": "Another"}], form),
            form=form,
            sees="The catalogue has item 'i0' twice with different values. Keep one row an item.",
        )
        yield broken_catalog(
            "an item twice, the same",
            encode([*good_items(), good_items()[0]], form),
            form=form,
            ends=READ,
            sees="6 items in the catalogue",
        )
        yield broken_catalog(
            "no column item_id",
            encode([{"title": "x"}], form),
            form=form,
            sees="The catalogue has no column 'item_id'",
        )
        yield broken_catalog(
            "title misspelt tilte",
            encode([{"item_id": "i0", "tilte": "x"}], form),
            form=form,
            sees="Did you mean 'title'?",
        )
        yield broken_catalog(
            "items of another shop",
            encode([{"item_id": f"x{number}", "title": "x"} for number in range(6)], form),
            form=form,
            sees="name an item that the catalogue lacks",
        )
        yield broken_catalog(
            "an item without an id",
            encode([*good_items(), {**good_items()[0], "item_id": None}], form),
            form=form,
            ends=READ,
            sees="6 items in the catalogue",
        )
        yield broken_catalog(
            "no item is a product",
            encode([{**item, "is_product": "false"} for item in good_items()], form),
            form=form,
            sees="At most 25% of a day's rows are bad",
        )
        yield broken_catalog(
            "a price that is a word",
            encode([{**item, "price": "cheap"} for item in good_items()], form),
            form=form,
            ends=READ,
            sees="6 items in the catalogue",
        )


CATALOGUES = (
    BrokenInput(
        name="a file that is not there",
        make=_write_log,
        catalog="catalog.csv",
        ends=REFUSED,
        sees="source.catalog is shop/catalog.csv, which does not exist",
    ),
    BrokenInput(
        name="a folder named like a file, empty",
        make=_with_folder,
        catalog="catalog.csv",
        ends=REFUSED,
        sees="which is a folder without a parquet, CSV or JSONL file",
    ),
    broken_catalog("an empty file", b"", sees="catalog.csv is empty"),
    broken_catalog("a header and no row", CSV.splitlines(keepends=True)[0], sees="The catalogue has no items."),
    broken_catalog("UTF-16 with a mark", CSV.decode().encode("utf-16"), sees="catalog.csv is UTF-16"),
    broken_catalog("a UTF-8 mark", b"\xef\xbb\xbf" + CSV, ends=READ, sees="6 items in the catalogue"),
    broken_catalog("parquet cut in the middle", PARQUET[:200], form="parquet", sees="catalog.parquet cannot be read"),
    broken_catalog("gzip cut in the middle", gzip.compress(CSV)[:-20], form="csv.gz", sees="catalog.csv.gz cannot be"),
    broken_catalog(
        "item_id twice in the header", CSV.replace(b"title", b"item_id", 1), sees="has the column 'item_id' twice"
    ),
    broken_catalog(
        "titles with quotes, newlines, HTML and right-to-left marks",
        encode([{**item, "title": '"a"\n<b>\'\u202e; DROP TABLE x'} for item in good_items()], "csv"),
        ends=READ,
        sees="6 items in the catalogue",
    ),
    broken_catalog(
        "one item that is no product",
        encode([{**item, "is_product": "no" if item["item_id"] == "i0" else ""} for item in good_items()], "csv"),
        ends=QUARANTINED,
        sees="item is not a product",
        kept=10,
        put_aside=2,
    ),
    *_in_every_form(),
)
