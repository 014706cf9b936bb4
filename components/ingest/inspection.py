"""Whether a file is what its name says, before anything is read from it: one sentence for each way in which it is not.

Nothing here reads further than the first bytes, except `read_whole`, which unpacks a gzip file to its end: its checksum
stands there, and DuckDB does not look at it.
"""

from __future__ import annotations

import gzip
import stat
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import ContractError

# What other kinds of files begin with. UTF-32 before UTF-16: its mark begins with the other's.
MAGIC = {b"PAR1": "parquet", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip or Excel"}
ENCODINGS = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
UTF8_MARK = b"\xef\xbb\xbf"
HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 22


def refuse_unreadable(path: str) -> None:
    """Raises ContractError for what is no file, is empty, or cannot be opened. Never waits: a pipe is not opened."""
    name = Path(path).name
    try:
        mode = Path(path).stat()
        if not stat.S_ISREG(mode.st_mode):
            raise ContractError(f"{name} is no regular file but a pipe, socket or device. Write the log to a file.")
        with Path(path).open("rb") as stream:
            first = stream.read(8)
    except OSError as error:
        raise cannot_be_read(path, error.strerror or str(error)) from error
    if not first:
        raise _empty(name)


def refuse_other_bytes(path: str, *, is_parquet: bool) -> None:
    """Raises ContractError where a file's first bytes are of another kind than its name says."""
    name = Path(path).name
    with Path(path).open("rb") as stream:
        first = stream.read(8)
    found = next((kind for magic, kind in MAGIC.items() if first.startswith(magic)), None)
    expected = "parquet" if is_parquet else {".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix.lower())
    if found == expected:
        return
    if found is not None:
        raise ContractError(f"{name} is {found} by its content. Give it the ending that says so, or unpack it.")
    if expected is not None:
        raise cannot_be_read(path, f"it is no {expected} file, or not a whole one")


def text_head(path: str) -> bytes:
    """The first bytes of a CSV or JSONL file, unpacked, without a UTF-8 mark. Raises ContractError for other texts."""
    name = Path(path).name
    try:
        with pa.input_stream(path, compression=_compression(path)) as stream:
            head = bytes(stream.read(HEADER_BYTES))
    except (OSError, pa.ArrowException) as error:
        raise cannot_be_read(path, str(error)) from error
    if not head:
        raise _empty(name)
    encoding = next((known for mark, known in ENCODINGS.items() if head.startswith(mark)), None)
    if encoding is not None:
        raise ContractError(f"{name} is {encoding}. Write it as UTF-8.")
    head = head.removeprefix(UTF8_MARK)
    if b"\x00" in head.split(b"\n", 1)[0]:
        raise ContractError(f"{name} has a NUL byte in its first line; is it UTF-16? Write it as UTF-8.")
    return head


def read_whole(path: str) -> None:
    """Unpack a gzip file to its end; raises ContractError where it is cut short or a bit of it is not what it was."""
    if Path(path).suffix.lower() != ".gz":
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(_BLOCK_BYTES):
                pass
    except (EOFError, zlib.error, OSError) as error:
        raise cannot_be_read(path, f"the gzip file is damaged ({error})") from error


def parquet_columns(path: str) -> tuple[str, ...]:
    """A parquet file's column names. Raises ContractError where its footer cannot be read or names no column."""
    try:
        names = tuple(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise cannot_be_read(path, "the parquet file is damaged or was not written to its end") from error
    if not names:
        raise ContractError(f"{Path(path).name} has no columns. docs/data-contract.md says which are needed.")
    return names


def refuse_doubled(path: str, columns: tuple[str, ...]) -> None:
    """Raises ContractError for a column without a name or one that stands twice: case does not count in DuckDB."""
    name = Path(path).name
    seen: dict[str, str] = {}
    for number, column in enumerate(columns, start=1):
        if not column:
            raise ContractError(f"{name}: column {number} has no name. Every column needs one, each its own.")
        other = seen.setdefault(column.casefold(), column)
        if len(seen) != number:
            twice = f"the column '{column}' twice" if other == column else f"the columns '{other}' and '{column}'"
            raise ContractError(
                f"{name} has {twice}. Rename or drop one: a name may stand once, and case does not count."
            )


def cannot_be_read(path: str, why: str) -> ContractError:
    first_line = why.strip().splitlines()[0].rstrip(".") if why.strip() else "it is damaged"
    return ContractError(f"{Path(path).name} cannot be read: {first_line}. Write it again, or leave it out.")


def _compression(path: str) -> str | None:
    return {".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix.lower())


def _empty(name: str) -> ContractError:
    return ContractError(f"{name} is empty. Write it again, or leave it out.")
