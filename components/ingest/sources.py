"""Finding the source's files and opening them as one DuckDB relation, every column as the file types it.

Text formats (CSV, JSONL) are read as text, so that one bad value never decides a column's type; a line that cannot be
read at all goes to the table `<name>_unreadable` (line, reason).
"""

from __future__ import annotations

import csv
import glob
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import fsspec
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from components.core.errors import ContractError, MissingExtraError, SettingsError
from components.core.hashing import file_sha256
from components.core.sections import SourceSettings
from components.ingest.profile import Profile

PARQUET, DELIMITED, JSON_LINES = "parquet", "csv", "jsonl"
FORMATS = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".csv": DELIMITED,
    ".tsv": DELIMITED,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
}
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """What one setting names: files of one format, on one file system."""

    setting: str
    fs: fsspec.AbstractFileSystem
    paths: tuple[str, ...]
    format: str

    def fingerprint(self) -> list[list[str]]:
        """Name and content hash of each file; on a remote store what it gives instead of a hash (an ETag)."""
        hash_of = _sha256 if isinstance(self.fs, LocalFileSystem) else self.fs.ukey
        return [[path.rsplit("/", 1)[-1], str(hash_of(path))] for path in self.paths]

    def local_paths(self, folder: Path) -> list[str]:
        """Paths that DuckDB can read; remote files are copied into `folder`."""
        if isinstance(self.fs, LocalFileSystem):
            return list(self.paths)
        folder.mkdir(parents=True, exist_ok=True)
        copies = [str(folder / f"{number}-{path.rsplit('/', 1)[-1]}") for number, path in enumerate(self.paths)]
        for path, copy in zip(self.paths, copies, strict=True):
            self.fs.get_file(path, copy)
        return copies


def event_files(profile: Profile, settings: SourceSettings) -> SourceFiles:
    if settings.events is not None:
        return find(settings.events, setting="source.events")
    if profile.events.files is None:
        raise SettingsError(
            f"The profile '{profile.name}' needs source.events: the path, glob or URI of the event files "
            "(parquet, CSV or JSONL)."
        )
    return find(_in_data(profile, settings, profile.events.files), setting="source.data")


def catalog_files(profile: Profile, settings: SourceSettings) -> SourceFiles | None:
    """None: the shop has no catalogue file."""
    if settings.catalog is not None:
        return find(settings.catalog, setting="source.catalog")
    if profile.catalog is None or profile.catalog.files is None:
        return None
    return find(_in_data(profile, settings, profile.catalog.files), setting="source.data")


def find(location: str, *, setting: str) -> SourceFiles:
    """The files that a path, glob or fsspec URI names; a folder stands for the data files in it."""
    fs, path = fsspec.core.url_to_fs(location)
    if isinstance(fs, LocalFileSystem):
        path = str(Path(location.removeprefix("file://")).expanduser())
    if glob.has_magic(path):
        found = [name for name in fs.glob(path) if fs.isfile(name)]
    elif fs.isdir(path):
        found = [name for name in fs.ls(path, detail=False) if fs.isfile(name)] or [path]
    else:
        found = [path] if fs.exists(path) else []
    paths = tuple(sorted(name for name in found if _format(name) is not None))
    if not paths:
        what = "has no parquet, CSV or JSONL file" if found else "does not exist"
        raise SettingsError(f"{setting} is {location}, which {what}. Known endings: {', '.join(FORMATS)} (+ .gz).")
    formats = {known for name in paths if (known := _format(name)) is not None}
    if len(formats) > 1:
        raise SettingsError(
            f"{setting} is {location}, which mixes file formats. Give a glob of one, such as *.parquet."
        )
    return SourceFiles(setting=setting, fs=fs, paths=paths, format=formats.pop())


def _in_data(profile: Profile, settings: SourceSettings, files: str) -> str:
    if settings.data is not None:
        data = settings.data.rstrip("/")
        return data if _format(data) is not None else f"{data}/{files}"
    if profile.package is None:
        raise SettingsError(f"The profile '{profile.name}' needs source.data: the folder or file that holds its log.")
    spec = importlib.util.find_spec(profile.package.name)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package=profile.package.name.replace("_", "-"), extra=profile.package.extra)
    return str(Path(spec.origin).parent / profile.package.folder / files)


def open_source(
    con: duckdb.DuckDBPyConnection, name: str, files: SourceFiles, folder: Path
) -> dict[str, tuple[str, ...]]:
    """Make the relation `name` and the table `<name>_unreadable`; returns the columns of each file, where all rows of
    a file have the same."""
    con.execute(f"CREATE TEMP TABLE {name}_unreadable (line VARCHAR, reason VARCHAR)")
    paths = files.local_paths(folder)
    try:
        match files.format:
            case "parquet":
                listed = ", ".join(map(_quote, paths))
                con.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet([{listed}], union_by_name = true)")
                return {_name(path): tuple(pq.read_schema(path).names) for path in paths}
            case "csv":
                return _open_delimited(con, name, paths)
            case _:
                _open_json_lines(con, name, paths, files.setting)
                return {}
    except duckdb.Error as error:
        first_line = str(error).splitlines()[0]
        raise ContractError(f"{files.setting}: {Path(files.paths[0]).name} cannot be read: {first_line}") from error


def _open_delimited(con: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    by_header: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for path in paths:
        by_header.setdefault(_header(path), []).append(path)
    parts = []
    for number, ((delimiter, columns), group) in enumerate(by_header.items()):
        listed = ", ".join(map(_quote, group))
        # Names and types are given: DuckDB's own sniffer gives up on files with a single broken line.
        types = ", ".join(f"{_quote(column)}: 'VARCHAR'" for column in columns)
        con.execute(
            f"CREATE TEMP TABLE {name}_part_{number} AS SELECT * FROM read_csv([{listed}], columns = {{{types}}}, "
            f"auto_detect = false, header = true, delim = {_quote(delimiter)}, quote = '\"', escape = '\"', "
            f"store_rejects = true, rejects_table = '{name}_errors', rejects_scan = '{name}_scans', rejects_limit = 0)"
        )
        parts.append(f"SELECT * FROM {name}_part_{number}")
    con.execute(f"CREATE TEMP VIEW {name} AS {' UNION ALL BY NAME '.join(parts)}")
    # One broken line gives an error a column.
    con.execute(
        f"INSERT INTO {name}_unreadable SELECT any_value(csv_line), 'line cannot be read: ' || "
        f"lower(min(error_type::VARCHAR)) FROM {name}_errors GROUP BY scan_id, file_id, line_byte_position"
    )
    return {_name(path): columns for (_, columns), group in by_header.items() for path in group}


def _header(path: str) -> tuple[str, tuple[str, ...]]:
    with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer", newline="") as stream:
        first = stream.readline()
    delimiter = max(",;\t|", key=first.count)
    columns = tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter), []))
    if not columns or len(set(columns)) != len(columns) or "" in columns:
        raise ContractError(f"{Path(path).name}: the first line must name every column, each once.")
    return delimiter, columns


def _open_json_lines(con: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str], setting: str) -> None:
    listed = ", ".join(map(_quote, paths))
    con.execute(
        f"CREATE TEMP TABLE {name}_lines AS SELECT line, "
        # CASE, since AND may evaluate its right side first, and json_type fails on what is no JSON.
        "CASE WHEN json_valid(line) THEN json_type(line) = 'OBJECT' ELSE false END AS is_object "
        f"FROM read_csv([{listed}], columns = {{'line': 'VARCHAR'}}, auto_detect = false, header = false, "
        "delim = '\x01', quote = '', escape = '', max_line_size = 16777216) WHERE trim(line) <> ''"
    )
    con.execute(
        f"INSERT INTO {name}_unreadable SELECT line, 'line cannot be read: no JSON object' FROM {name}_lines "
        "WHERE NOT is_object"
    )
    con.execute(f"DELETE FROM {name}_lines WHERE NOT is_object")
    keys = con.execute(f"SELECT DISTINCT unnest(json_keys(line)) AS key FROM {name}_lines ORDER BY key").fetchall()
    if not keys:
        raise ContractError(
            f'{setting}: {Path(paths[0]).name} has no line that is a JSON object, such as {{"item_id": 1}}.'
        )
    columns = ", ".join(f"line ->> {_quote('$.' + _json_name(key))} AS {identifier(key)}" for (key,) in keys)
    con.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} FROM {name}_lines")


def columns_of(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Column names and DuckDB types of a relation."""
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return _quote(text)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _json_name(key: str) -> str:
    return '"' + key.replace('"', '\\"') + '"'


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _sha256(path: str) -> str:
    return file_sha256(Path(path))


def _format(name: str) -> str | None:
    path = Path(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return FORMATS.get(path.suffix.lower())
