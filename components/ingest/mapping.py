"""From the source's columns to the contract's: names are checked here, casts and their reasons are built here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from components.core.errors import ContractError
from components.core.schemas import CATALOG, EVENT_COLUMNS, REQUIRED_EVENT_COLUMNS
from components.ingest.profile import Mapped, Sql, Value, nearest
from components.ingest.sql import identifier, literal

CATALOG_COLUMNS: tuple[str, ...] = (*(name for name in CATALOG.names if name != "attributes"), "is_product")
# What shops call the contract's columns; only for the hint in an error.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "item_id": ("item", "product", "product_id", "sku", "article_id", "stock_code", "asin"),
    "user_id": ("user", "customer", "customer_id", "client_id", "visitor_id", "household_id"),
    "event_type": ("event", "type", "action", "kind", "behaviour", "behavior"),
    "timestamp": ("time", "ts", "datetime", "date", "event_time", "created_at"),
    "session_id": ("session", "visit_id", "basket_id", "order_id", "invoice"),
    "quantity": ("qty", "amount", "units", "count"),
    "price": ("unit_price", "cost"),
    "rating": ("stars", "score", "user_rating"),
    "title": ("name", "description", "item_name", "product_name"),
    "category": ("categories", "product_category", "category_name"),
}
# Times outside are nobody's: Python's calendar ends at 9999, and one such row would move the log's end there.
FIRST_YEAR, LAST_YEAR = 1900, 2199
_WRONG_OFFSET = r":\d\d.*[+-](1[5-9]|[2-9]\d)(:?\d\d)?\s*$"


@dataclass(frozen=True)
class Expressions:
    """One DuckDB expression a contract column; columns that the source lacks are absent."""

    by_column: Mapping[str, str]
    source: tuple[str, ...]
    """Every column of the source."""
    ignored: tuple[str, ...]
    """Columns of the source that nothing reads."""

    def get(self, column: str) -> str:
        return self.by_column.get(column, "NULL")


def map_events(
    columns: Mapping[str, str], mapped: Mapping[str, Mapped], *, same_names: bool, where: str
) -> Expressions:
    """`columns` are the source's; raises ContractError for a missing, misspelt or unknown column."""
    found = _expressions(columns, mapped, EVENT_COLUMNS, same_names=same_names, where=where)
    for required in REQUIRED_EVENT_COLUMNS:
        if required not in found.by_column:
            raise ContractError(_missing(required, columns, where))
    if "user_id" not in found.by_column and "session_id" not in found.by_column:
        raise ContractError(f"{where} has neither a column 'user_id' nor 'session_id'; one of them is needed.")
    return found


def map_catalog(
    columns: Mapping[str, str], mapped: Mapping[str, Mapped], *, same_names: bool, where: str
) -> Expressions:
    found = _expressions(columns, mapped, CATALOG_COLUMNS, same_names=same_names, where=where)
    if "item_id" not in found.by_column:
        raise ContractError(_missing("item_id", columns, where))
    return found


def map_attributes(
    columns: Mapping[str, str], mapped: Mapping[str, Mapped], *, rest: Iterable[str], where: str
) -> dict[str, str]:
    """Further attributes: those that the profile names, else (`rest`) every column that nothing reads."""
    if mapped:
        return {name: _expression(value, columns, where) for name, value in sorted(mapped.items())}
    return {name: identifier(name) for name in sorted(rest)}


def refuse_renamed_columns(by_file: Mapping[str, Iterable[str]], found: Expressions) -> None:
    """A file that lacks a column which the others have, but has one of its own, has most likely renamed it.

    Read as one log, its rows would silently have no value there. Raises ContractError.
    """
    read = mentioned(found.by_column.values(), found.source)
    required = mentioned([found.get(name) for name in REQUIRED_EVENT_COLUMNS], found.source)
    everywhere = set(found.source).intersection(*map(set, by_file.values()))
    for name, columns in by_file.items():
        own = [column for column in columns if column not in everywhere and column not in read]
        lacking = sorted(column for column in read if column not in set(columns))
        for column in lacking:
            if column in required or own:
                hint = _hint(column, own)
                raise ContractError(
                    f"{name} has no column '{column}', which other files of the log have"
                    + (f"; did it become '{hint}'?" if hint else ".")
                    + " Rename it there, or ingest the file with a profile of its own."
                )


def _expressions(
    columns: Mapping[str, str],
    mapped: Mapping[str, Mapped],
    contract: tuple[str, ...],
    *,
    same_names: bool,
    where: str,
) -> Expressions:
    for name in mapped:
        if name not in contract:
            hint = nearest(name, contract)
            raise ContractError(
                f"The profile maps '{name}', which is no column of the contract."
                + (f" Did you mean '{hint}'?" if hint else f" Known: {', '.join(contract)}.")
            )
    found = {name: _expression(value, columns, where) for name, value in mapped.items()}
    if same_names:
        found |= {name: identifier(name) for name in contract if name in columns and name not in found}
        _refuse_misspelt(columns, [name for name in contract if name not in found], contract, where)
    used = {name for name in columns if any(_mentions(expression, name) for expression in found.values())}
    return Expressions(found, tuple(columns), tuple(sorted(set(columns) - used)))


def _refuse_misspelt(columns: Mapping[str, str], absent: list[str], contract: tuple[str, ...], where: str) -> None:
    # 'quantitiy' would silently be left out; only a column that resembles nothing in the contract may be.
    for name in columns:
        hint = nearest(name, absent) if name not in contract else None
        if hint is not None:
            # 'event_time' is spelt like 'event_id', and means the timestamp.
            hint = next((column for column in absent if name.lower() in SYNONYMS.get(column, ())), hint)
            raise ContractError(
                f"{where} has a column '{name}', which the contract does not know. Did you mean '{hint}'? "
                "Rename it, or drop it if it is something else."
            )


def _missing(column: str, columns: Mapping[str, str], where: str) -> str:
    hint = _hint(column, columns)
    has = f"the nearest is '{hint}'" if hint else f"it has: {', '.join(list(columns)[:12])}"
    return f"{where} has no column '{column}'; {has}. Rename it, or map it in a profile (docs/data-contract.md)."


def _hint(column: str, columns: Iterable[str]) -> str | None:
    """The column that most likely is meant, by spelling or by what shops call it."""
    known = {name.lower(): name for name in columns}
    by_synonym = next((known[word] for word in SYNONYMS.get(column, ()) if word in known), None)
    return nearest(column, known.values()) or by_synonym


def _expression(value: Mapped, columns: Mapping[str, str], where: str) -> str:
    match value:
        case Value(value=text):
            return literal(text)
        case Sql(sql=sql):
            return f"({sql})"
        case name:
            if name not in columns:
                hint = nearest(name, columns)
                raise ContractError(
                    f"{where} has no column '{name}', which the profile maps."
                    + (f" Did you mean '{hint}'?" if hint else f" It has: {', '.join(columns)}.")
                )
            return identifier(name)


def explain_binder(error: duckdb.Error, columns: Iterable[str], where: str) -> ContractError:
    """DuckDB's page about an expression of a profile becomes one sentence."""
    names = list(columns)
    match = re.search(r'column "?([^"\s]+)"? not found', str(error))
    if match is None:
        return ContractError(f"{where}: an expression of the profile fails: {str(error).splitlines()[0]}")
    hint = nearest(match.group(1), names)
    has = f"Did you mean '{hint}'?" if hint else f"It has: {', '.join(names)}."
    return ContractError(f"{where} has no column '{match.group(1)}', which the profile reads. {has}")


def _mentions(expression: str, column: str) -> bool:
    return identifier(column) in expression or re.search(rf"\b{re.escape(column)}\b", expression) is not None


def mentioned(expressions: Iterable[str], columns: Iterable[str]) -> set[str]:
    """The source's columns that any of the expressions reads."""
    listed = list(expressions)
    return {name for name in columns if any(_mentions(expression, name) for expression in listed)}


def refuse_nested(types: Mapping[str, str], where: str) -> None:
    """`types` are DuckDB types by contract column; raises ContractError for one that holds more than a value a row."""
    for name, type_ in types.items():
        if type_.endswith("]") or type_.startswith(("STRUCT", "MAP", "UNION")):
            raise ContractError(f"{where}: '{name}' holds lists or objects ({type_}). Give one value a row.")
        if type_ == "BLOB":
            raise ContractError(f"{where}: '{name}' holds bytes that are no text. Write it as text.")


def text_cast(raw: str, duckdb_type: str) -> str:
    """Text without blanks around it, null when empty. pandas turns ids with gaps into 13085.0: that is '13085'."""
    if duckdb_type.startswith(("DOUBLE", "FLOAT", "DECIMAL")):
        number = f"CAST({raw} AS DOUBLE)"
        whole = f"CAST(TRY_CAST({raw} AS HUGEINT) AS VARCHAR)"
        return (
            f"CASE WHEN isnan({number}) THEN NULL WHEN isfinite({number}) AND {raw} = trunc({raw}) THEN {whole} "
            f"ELSE CAST({raw} AS VARCHAR) END"
        )
    return f"nullif(trim(CAST({raw} AS VARCHAR)), '')"


def number_cast(raw: str, duckdb_type: str) -> str:
    """DOUBLE; null when empty or NaN (pandas' way to say missing) and when it is no number."""
    value = f"nullif(trim({raw}), '')" if duckdb_type == "VARCHAR" else raw
    return f"nullif(TRY_CAST({value} AS DOUBLE), 'nan'::DOUBLE)"


def time_cast(raw: str, duckdb_type: str) -> str:
    """TIMESTAMP WITH TIME ZONE; naive times are UTC (the connection's zone), integers count from 1970. Null for what is
    no time and what lies outside FIRST_YEAR to LAST_YEAR."""
    time = any_time_cast(raw, duckdb_type)
    return f"CASE WHEN year({time}) BETWEEN {FIRST_YEAR} AND {LAST_YEAR} THEN {time} END"


def any_time_cast(raw: str, duckdb_type: str) -> str:
    """As `time_cast`, of any year."""
    if duckdb_type == "TIMESTAMP WITH TIME ZONE":
        time = raw
    elif duckdb_type == "DATE" or duckdb_type.startswith("TIMESTAMP"):
        time = f"CAST(CAST({raw} AS TIMESTAMP) AS TIMESTAMPTZ)"
    elif duckdb_type == "VARCHAR":
        # DuckDB takes an offset of 99 hours; the world's are from -12 to +14.
        given = f"CASE WHEN NOT regexp_matches({raw}, '{_WRONG_OFFSET}') THEN {raw} END"
        time = f"coalesce(TRY_CAST({given} AS TIMESTAMPTZ), {_epoch(f'TRY_CAST({raw} AS DOUBLE)')})"
    else:
        time = _epoch(f"TRY_CAST({raw} AS DOUBLE)")
    return f"CASE WHEN isfinite({time}) THEN {time} END"


def _epoch(number: str) -> str:
    # Seconds, milli-, micro- or nanoseconds between 1990 and 2286: the ranges are apart, and dates written as
    # 20170101 or 20170101120000 fall in none.
    cases = (
        f"WHEN {number} BETWEEN {6.3e8 * scale} AND {1e10 * scale} THEN to_timestamp({number} / {scale})"
        for scale in (1.0, 1e3, 1e6, 1e9)
    )
    return f"CASE {' '.join(cases)} END"
