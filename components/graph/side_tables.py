"""Tables that a shop may give beside its log: a knowledge graph's triples and a merchandiser's rules."""

from __future__ import annotations

import hashlib

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from components.core.errors import ContractError
from components.core.sections import GraphSettings
from components.model.rules import ALWAYS_WITH, NEVER_TOGETHER, RULES

TRIPLES = pa.schema([(name, pa.string()) for name in ("head", "relation", "tail")])
NO_TRIPLES, NO_RULES = TRIPLES.empty_table(), RULES.empty_table()


def read_triples(where: str | None) -> pa.Table:
    """(head, relation, tail) as text, sorted and distinct; empty where the setting is None."""
    return NO_TRIPLES if where is None else _read(where, TRIPLES, setting="graph.knowledge")


def read_rules(where: str | None) -> pa.Table:
    """(item_id, other_item_id, rule) as text, sorted and distinct; empty where the setting is None."""
    if where is None:
        return NO_RULES
    table = _read(where, RULES, setting="graph.rules")
    other = sorted(set(table["rule"].unique().to_pylist()) - {NEVER_TOGETHER, ALWAYS_WITH})
    if other:
        raise ContractError(f"{where} has the rule '{other[0]}'; known: {ALWAYS_WITH}, {NEVER_TOGETHER}.")
    return table


def side_tables_sha256(settings: GraphSettings) -> dict[str, str]:
    """What the tables say, for the step's key: a setting names only where they are."""
    named = {"knowledge": read_triples(settings.knowledge), "rules": read_rules(settings.rules)}
    return {name: _digest(table) for name, table in named.items()}


def _digest(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for column in table.combine_chunks().columns:
        for value in column.to_pylist():
            digest.update(value.encode() + b"\0")
    return digest.hexdigest()


def _read(where: str, schema: pa.Schema, *, setting: str) -> pa.Table:
    try:
        with fsspec.open(where, "rb") as stream:
            if where.endswith(".parquet"):
                table = pq.read_table(pa.BufferReader(stream.read()))
            else:
                as_text = pa.csv.ConvertOptions(column_types=schema)
                table = pa.csv.read_csv(stream, convert_options=as_text)
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{setting} names {where}, which cannot be read as CSV or parquet: {error}") from error
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise ContractError(
            f"{where} has no column '{missing[0]}'; {setting} needs a table with {', '.join(schema.names)}."
        )
    table = table.select(schema.names).cast(schema)
    for name in schema.names:
        empty = pc.sum(pc.or_(pc.is_null(table[name]), pc.equal(pc.fill_null(table[name], ""), ""))).as_py()
        if empty:
            raise ContractError(f"{where} has {empty} rows without '{name}'. Fill or drop them.")
    return table.group_by(schema.names).aggregate([]).sort_by([(name, "ascending") for name in schema.names])
