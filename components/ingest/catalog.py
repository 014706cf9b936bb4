"""The catalogue in the contract: one row an item, further columns as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from components.core.errors import ContractError
from components.core.schemas import CATALOG
from components.ingest.log import MAX_TEXT
from components.ingest.mapping import (
    explain_binder,
    map_attributes,
    map_catalog,
    number_cast,
    refuse_nested,
    text_cast,
)
from components.ingest.profile import Profile
from components.ingest.sql import columns_of, literal

# An attribute that only items which are no products bear: validation takes them and their events out.
NOT_A_PRODUCT = ("is_product", "false")


def read_catalog(con: duckdb.DuckDBPyConnection, profile: Profile, *, relation: str) -> tuple[pa.Table, dict[str, Any]]:
    """`relation` -> (CATALOG sorted by item_id, counts: source = kept + duplicates + rejected)."""
    where = "The catalogue"
    columns = columns_of(con, relation)
    mapping = profile.catalog.columns if profile.catalog is not None else {}
    wanted = profile.catalog.attributes if profile.catalog is not None else {}
    found = map_catalog(columns, mapping, same_names=profile.same_names, where=where)
    rest = found.ignored if profile.same_names else ()
    attributes = map_attributes(columns, wanted, rest=rest, where=where)
    names = (*(name for name in CATALOG.names if name != "attributes"), "is_product")
    selected = [f"{found.get(name)} AS {name}" for name in names]
    selected += [f"{expression} AS attribute_{number}" for number, expression in enumerate(attributes.values())]
    try:
        con.execute(f"CREATE TEMP VIEW catalog_raw AS SELECT {', '.join(selected)} FROM {relation}")
        types = columns_of(con, "catalog_raw")
    except duckdb.BinderException as error:
        raise explain_binder(error, columns, where) from error
    refuse_nested({name: types[name] for name in names}, where)
    casts = {name: _short(text_cast(name, types[name])) for name in ("title", "category", "brand")}
    casts["item_id"] = _usable_id(text_cast("item_id", types["item_id"]))
    casts["price"] = number_cast("price", types["price"])
    con.execute(
        f"""
        CREATE TEMP TABLE catalog_typed AS
        SELECT {", ".join(f"{casts[name]} AS {name}" for name in names if name in casts)},
               {_attribute_map(attributes, types)} AS attributes,
               price IS NOT NULL AND {casts["price"]} IS NULL AS has_bad_price
        FROM catalog_raw
        """
    )
    _refuse_contradictions(con)
    table = (
        con.sql(
            """
        SELECT * EXCLUDE (has_bad_price) FROM catalog_typed WHERE item_id IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY title, category, brand, price, attributes::VARCHAR) = 1
        ORDER BY item_id
        """
        )
        .to_arrow_table()
        .cast(CATALOG)
    )
    source, no_id, bad_prices = con.execute(
        "SELECT count(*), count(*) FILTER (item_id IS NULL), count(*) FILTER (has_bad_price) FROM catalog_typed"
    ).fetchall()[0]
    if not table.num_rows:
        raise ContractError("The catalogue has no items. Give one that has some, or leave source.catalog out.")
    unreadable = 0
    if relation == "catalog_source":
        unreadable = con.execute("SELECT count(*) FROM catalog_source_unreadable").fetchall()[0][0]
    counts = {
        "source": source + unreadable,
        "kept": table.num_rows,
        "duplicates": source - no_id - table.num_rows,
        "rejected": no_id + unreadable,
        "prices_not_a_number": bad_prices,
    }
    return table, counts


def _refuse_contradictions(con: duckdb.DuckDBPyConnection) -> None:
    """Raises ContractError for an item that stands twice with different values: nobody knows which is right."""
    values = "struct_pack(title, category, brand, price, attributes := attributes::VARCHAR)::VARCHAR"
    found = con.execute(
        f"""
        SELECT item_id, count(*) OVER () FROM catalog_typed WHERE item_id IS NOT NULL GROUP BY item_id
        HAVING count(DISTINCT {values}) > 1
        ORDER BY item_id LIMIT 1
        """
    ).fetchall()
    if found:
        item, number = found[0]
        others = f" (and {number - 1:,} more)" if number > 1 else ""
        raise ContractError(
            f"The catalogue has item '{item}'{others} twice with different values. Keep one row an item."
        )


def _short(text: str) -> str:
    return f"left({text}, {MAX_TEXT})"


def _usable_id(text: str) -> str:
    """Null for what the log would not take as an item's id either."""
    return f"CASE WHEN length({text}) <= {MAX_TEXT} AND NOT contains({text}, chr(0)) THEN {text} END"


def _attribute_map(attributes: Mapping[str, str], types: Mapping[str, str]) -> str:
    key, value = map(literal, NOT_A_PRODUCT)
    is_product = "TRY_CAST(is_product AS BOOLEAN)" if types["is_product"] != '"NULL"' else "NULL"
    entries = [
        f"{{'k': {literal(name)}, 'v': {_short(text_cast(f'attribute_{number}', types[f'attribute_{number}']))}}}"
        for number, name in enumerate(attributes)
    ]
    entries.append(f"{{'k': {key}, 'v': CASE WHEN NOT {is_product} THEN {value} END}}")
    return f"map_from_entries(list_filter([{', '.join(entries)}], lambda entry: entry.v IS NOT NULL))"
