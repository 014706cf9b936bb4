"""Files as one DuckDB relation, every column as the file types it.

Text formats (CSV, JSONL) are read as text, so that one bad value never decides a column's type; a line that cannot be
read at all goes to the table `<name>_unreadable` (line, reason).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import duckdb

from components.core.errors import ContractError
from components.ingest.inspection import (
    cannot_be_read,
    parquet_columns,
    read_whole,
    refuse_doubled,
    refuse_other_bytes,
    refuse_unreadable,
    text_head,
)
from components.ingest.sources import DELIMITED, PARQUET, SourceFiles
from components.ingest.sql import identifier, literal

# A longer line is put aside; DuckDB holds a line in memory.
MAX_LINE_BYTES = 1 << 21
_REJECTS = "store_rejects = true, rejects_limit = 0"
NOT_LINES = "is one JSON {what}. Write one object a line (JSON lines), as `jq -c '.[]'` does."


def open_source(
    con: duckdb.DuckDBPyConnection, name: str, files: SourceFiles, folder: Path, *, flat: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Make the relation `name` and the table `<name>_unreadable`; returns the columns of each file, where all rows of
    a file have the same. `flat` are columns in which a JSON list or object makes a line unreadable."""
    con.execute(f"CREATE TEMP TABLE {name}_unreadable (line VARCHAR, reason VARCHAR)")
    paths = files.local_paths(folder)
    for path in paths:
        refuse_unreadable(path)
        refuse_other_bytes(path, is_parquet=files.format == PARQUET)
        read_whole(path)
    try:
        if files.format == PARQUET:
            return _open_parquet(con, name, paths)
        if files.format == DELIMITED:
            return _open_delimited(con, name, paths)
        _open_json_lines(con, name, paths, flat)
        return {}
    except duckdb.Error as error:
        raise explain_unreadable(con, files.format, paths, error) from error


def explain_unreadable(
    con: duckdb.DuckDBPyConnection, format_: str, paths: Sequence[str], error: duckdb.Error
) -> ContractError:
    """DuckDB could not read the files: says which, by reading each alone."""
    if format_ == PARQUET:
        for path in paths:
            try:
                con.execute(f"SELECT max(hash(s)) FROM read_parquet({literal(path)}) s").fetchall()
            except duckdb.Error as own:
                return cannot_be_read(path, str(own))
    if isinstance(error, duckdb.ConversionException) and len(paths) > 1:
        first = str(error).splitlines()[0]
        return ContractError(f"The files do not go together: {first}. Write each column with one type in all of them.")
    named = next((path for path in paths if path in str(error)), paths[0])
    return cannot_be_read(named, str(error))


def _open_parquet(con: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    by_file = {path: parquet_columns(path) for path in paths}
    for path, columns in by_file.items():
        refuse_doubled(path, columns)
    listed = ", ".join(map(literal, paths))
    con.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet([{listed}], union_by_name = true)")
    return {_name(path): columns for path, columns in by_file.items()}


def _open_delimited(con: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    by_header: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for path in paths:
        by_header.setdefault(_header(path), []).append(path)
    parts = []
    for number, ((delimiter, columns), group) in enumerate(by_header.items()):
        listed = ", ".join(map(literal, group))
        # Names and types are given: DuckDB's own sniffer gives up on files with a single broken line.
        types = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
        con.execute(
            f"CREATE TEMP TABLE {name}_part_{number} AS SELECT * FROM read_csv([{listed}], columns = {{{types}}}, "
            f"auto_detect = false, header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', "
            f"max_line_size = {MAX_LINE_BYTES}, {_REJECTS}, rejects_table = '{name}_errors', "
            f"rejects_scan = '{name}_scans')"
        )
        parts.append(f"SELECT * FROM {name}_part_{number}")
    con.execute(f"CREATE TEMP VIEW {name} AS {' UNION ALL BY NAME '.join(parts)}")
    _put_aside(con, name)
    return {_name(path): columns for (_, columns), group in by_header.items() for path in group}


def _put_aside(con: duckdb.DuckDBPyConnection, name: str) -> None:
    # One broken line gives an error a column.
    con.execute(
        f"INSERT INTO {name}_unreadable SELECT any_value(csv_line), 'line cannot be read: ' || "
        f"lower(min(error_type::VARCHAR)) FROM {name}_errors GROUP BY scan_id, file_id, line_byte_position"
    )


def _header(path: str) -> tuple[str, tuple[str, ...]]:
    """A file's delimiter and column names."""
    head = text_head(path)
    if head.lstrip()[:1] in (b"{", b"["):
        raise ContractError(f"{_name(path)} is JSON by its content. Give it the ending .jsonl, one object a line.")
    try:
        first = head.replace(b"\r", b"\n").split(b"\n", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise ContractError(f"{_name(path)} is no UTF-8: its first line has other bytes. Write it as UTF-8.") from error
    delimiter = max(",;\t|", key=first.count)
    columns = tuple(name.strip() for name in next(csv.reader(io.StringIO(first), delimiter=delimiter), []))
    if not any(columns):
        raise ContractError(f"{_name(path)}: the first line must name every column, each once.")
    refuse_doubled(path, columns)
    return delimiter, columns


def _open_json_lines(con: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str], flat: Sequence[str]) -> None:
    for path in paths:
        first = text_head(path).lstrip().split(b"\n", 1)[0].strip()
        # A line that is a list, among others, is put aside.
        if first == b"[" or first.startswith((b"[{", b"[ {")):
            raise ContractError(f"{_name(path)} {NOT_LINES.format(what='list')}")
    listed = ", ".join(map(literal, paths))
    con.execute(
        f"CREATE TEMP TABLE {name}_lines AS SELECT line, CAST(NULL AS VARCHAR) AS problem "
        f"FROM read_csv([{listed}], columns = {{'line': 'VARCHAR'}}, auto_detect = false, header = false, "
        f"delim = '\x01', quote = '', escape = '', max_line_size = {MAX_LINE_BYTES}, {_REJECTS}, "
        f"rejects_table = '{name}_errors', rejects_scan = '{name}_scans') WHERE trim(line) <> ''"
    )
    _put_aside(con, name)
    # CASE, since AND may evaluate its right side first, and json_type fails on what is no JSON.
    is_object = "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END"
    con.execute(f"UPDATE {name}_lines SET problem = 'no JSON object' WHERE NOT {is_object}")
    con.execute(
        f"UPDATE {name}_lines SET problem = 'a key stands twice' WHERE problem IS NULL "
        "AND len(json_keys(line)) <> len(list_distinct(json_keys(line)))"
    )
    keys = [
        key
        for (key,) in con.execute(
            f"SELECT DISTINCT unnest(json_keys(line)) AS key FROM {name}_lines WHERE problem IS NULL ORDER BY key"
        ).fetchall()
    ]
    if not keys:
        raise ContractError(f'{_name(paths[0])} has no line that is a JSON object, such as {{"item_id": 1}}.')
    refuse_doubled(paths[0], tuple(keys))
    _refuse_rows_within(con, name, paths[0], keys)
    for key in sorted(set(keys) & set(flat)):
        con.execute(
            f"UPDATE {name}_lines SET problem = {literal(f'{key} is a list or an object')} WHERE problem IS NULL "
            f"AND json_type(line, {_json_path(key)}) IN ('ARRAY', 'OBJECT')"
        )
    con.execute(
        f"INSERT INTO {name}_unreadable SELECT line, 'line cannot be read: ' || problem FROM {name}_lines "
        "WHERE problem IS NOT NULL"
    )
    con.execute(f"DELETE FROM {name}_lines WHERE problem IS NOT NULL")
    columns = ", ".join(f"line ->> {_json_path(key)} AS {identifier(key)}" for key in keys)
    con.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} FROM {name}_lines")


def _refuse_rows_within(con: duckdb.DuckDBPyConnection, name: str, path: str, keys: Sequence[str]) -> None:
    """Raises ContractError for a file of one object that holds the rows under a key."""
    if con.execute(f"SELECT count(*) FROM {name}_lines").fetchall() != [(1,)]:
        return
    for key in keys:
        within = _json_path(key, "[0]")
        if con.execute(f"SELECT json_type(line, {within}) = 'OBJECT' FROM {name}_lines").fetchall() == [(True,)]:
            raise ContractError(f"{_name(path)} {NOT_LINES.format(what=f'object with the rows under {key!r}')}")


def _json_path(key: str, rest: str = "") -> str:
    return literal('$."' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' + rest)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
