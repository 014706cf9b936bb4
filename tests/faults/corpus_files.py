"""Files that are not there, are no files, never end, end too soon, or hold other bytes than their name says."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

from broken_shop import QUARANTINED, READ, REFUSED, BrokenInput, broken_log, encode, good_rows

CSV, JSONL, PARQUET = (encode(good_rows(), form) for form in ("csv", "jsonl", "parquet"))
HEADER = CSV.splitlines(keepends=True)[0]


def _flipped(data: bytes, place: int) -> bytes:
    """One bit is another."""
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def _refused(
    name: str, make: Callable[[Path], None], *, sees: str, events: str = "events.csv", may_hang: bool = False
) -> BrokenInput:
    return BrokenInput(name=name, make=make, events=events, ends=REFUSED, sees=sees, may_hang=may_hang)


def _loop(shop: Path) -> None:
    (shop / "events.csv").symlink_to(shop / "other.csv")
    (shop / "other.csv").symlink_to(shop / "events.csv")


def _folder_of(*files: tuple[str, bytes]) -> Callable[[Path], None]:
    def make(shop: Path) -> None:
        (shop / "logs").mkdir()
        for name, data in files:
            (shop / "logs" / name).write_bytes(data)

    return make


def _good_day(day: int) -> bytes:
    return CSV.replace(b"2024-05-01", f"2024-05-{day:02d}".encode())


GONE = (
    _refused("a file that is not there", lambda shop: None, sees="which does not exist"),
    _refused("a glob that nothing matches", lambda shop: None, events="*.csv", sees="which matches no such file"),
    _refused(
        "a folder named like a file, empty",
        lambda shop: (shop / "events.csv").mkdir(),
        sees="which is a folder without a parquet, CSV or JSONL file",
    ),
    _refused(
        "a folder of other files",
        _folder_of(("readme.txt", b"hello"), ("events.xlsx", b"PK")),
        events="logs",
        sees="which is a folder without a parquet, CSV or JSONL file",
    ),
    _refused(
        "a file of another kind",
        lambda shop: (shop / "events.xlsx").write_bytes(b"PK\x03\x04"),
        events="events.xlsx",
        sees="which is no parquet, CSV or JSONL file by its name",
    ),
    _refused(
        "a folder of CSV and parquet",
        _folder_of(("1.csv", CSV), ("2.parquet", PARQUET)),
        events="logs",
        sees="which mixes file formats",
    ),
    _refused("links in a circle", _loop, sees="events.csv cannot be read: Too many levels of symbolic links"),
    _refused(
        "a link to nowhere",
        lambda shop: (shop / "events.csv").symlink_to(shop / "gone.csv"),
        sees="events.csv cannot be read: No such file",
    ),
    # Root may open every file; this one fails for root too when it is read.
    _refused(
        "a file that cannot be read",
        lambda shop: (shop / "events.csv").symlink_to("/proc/self/mem"),
        sees="events.csv cannot be read: Input/output error",
    ),
    _refused(
        "a pipe, CSV", lambda shop: os.mkfifo(shop / "events.csv"), sees="events.csv is no regular file", may_hang=True
    ),
    _refused(
        "a pipe, parquet",
        lambda shop: os.mkfifo(shop / "events.parquet"),
        events="events.parquet",
        sees="events.parquet is no regular file",
        may_hang=True,
    ),
    _refused(
        "a device that never ends",
        lambda shop: (shop / "events.jsonl").symlink_to("/dev/zero"),
        events="events.jsonl",
        sees="events.jsonl is no regular file",
        may_hang=True,
    ),
    _refused(
        "a URI of an unknown kind", lambda shop: None, events="ftp9://shop/events.csv", sees="Protocol not known: ftp9"
    ),
    _refused(
        "a URI whose package is not installed",
        lambda shop: None,
        events="gs://shop/events.csv",
        sees="gcsfs",
    ),
    BrokenInput(
        name="a folder named like a file, with a log in it",
        make=lambda shop: (_folder_of(("1.csv", CSV))(shop), (shop / "logs").rename(shop / "events.csv"))[0],
        ends=READ,
        sees="12 rows = 12 kept",
    ),
)

EMPTY = (
    broken_log("an empty file", b"", sees="events.csv is empty"),
    broken_log("an empty file", b"", form="jsonl", sees="events.jsonl is empty"),
    broken_log("an empty file", b"", form="parquet", sees="events.parquet is empty"),
    broken_log("a gzip of nothing", gzip.compress(b""), form="csv.gz", sees="events.csv.gz is empty"),
    broken_log("a header and no row", HEADER, sees="The log has no rows."),
    broken_log("blank lines", b"\n\n  \n", form="jsonl", sees="has no line that is a JSON object"),
    broken_log("blank lines", b"\n\n\n", sees="the first line must name every column"),
    broken_log("no column", encode([], "parquet"), form="parquet", sees="events.parquet has no columns"),
    _refused(
        "one empty file among good ones",
        _folder_of(("1.csv", CSV), ("2.csv", b"")),
        events="logs",
        sees="2.csv is empty",
    ),
)

CUT = (
    broken_log("parquet cut in the middle", PARQUET[: len(PARQUET) // 2], form="parquet", sees="events.parquet cannot"),
    broken_log("parquet without its last byte", PARQUET[:-1], form="parquet", sees="events.parquet cannot be read"),
    broken_log("parquet of four bytes", PARQUET[:4], form="parquet", sees="events.parquet cannot be read"),
    broken_log(
        "a bit of parquet's footer flipped", _flipped(PARQUET, len(PARQUET) - 5), form="parquet", sees="cannot be read"
    ),
    broken_log("a bit of parquet's first page flipped", _flipped(PARQUET, 6), form="parquet", sees="cannot be read"),
    broken_log("gzip cut in the middle", gzip.compress(CSV)[:-40], form="csv.gz", sees="events.csv.gz cannot be read"),
    broken_log("gzip cut before its checksum", gzip.compress(CSV)[:-8], form="csv.gz", sees="cannot be read"),
    broken_log(
        "a bit of gzip flipped", _flipped(gzip.compress(CSV), 60), form="csv.gz", sees="events.csv.gz cannot be read"
    ),
    broken_log("a bit of gzip flipped", _flipped(gzip.compress(JSONL), 60), form="jsonl.gz", sees="cannot be read"),
    broken_log("gzip cut in the middle", gzip.compress(JSONL)[:-40], form="jsonl.gz", sees="cannot be read"),
    _refused(
        "one cut gzip file among good ones",
        _folder_of(("1.csv.gz", gzip.compress(CSV)), ("2.csv.gz", gzip.compress(_good_day(2))[:-30])),
        events="logs",
        sees="2.csv.gz cannot be read",
    ),
    _refused(
        "one cut parquet file among good ones",
        _folder_of(("1.parquet", PARQUET), ("2.parquet", PARQUET[:-30])),
        events="logs",
        sees="2.parquet cannot be read",
    ),
    broken_log("a last line cut short", CSV[:-30], ends=QUARANTINED, sees="line cannot be read", kept=11, put_aside=1),
    broken_log(
        "a last line cut short",
        JSONL[:-30],
        form="jsonl",
        ends=QUARANTINED,
        sees="no JSON object",
        kept=11,
        put_aside=1,
    ),
)

OTHER_BYTES = (
    broken_log("CSV named parquet", CSV, form="parquet", sees="events.parquet cannot be read"),
    broken_log("parquet named CSV", PARQUET, sees="events.csv is parquet by its content"),
    broken_log("parquet named JSONL", PARQUET, form="jsonl", sees="events.jsonl is parquet by its content"),
    broken_log("gzip named CSV", gzip.compress(CSV), sees="events.csv is gzip by its content"),
    broken_log("CSV named gzip", CSV, form="csv.gz", sees="events.csv.gz cannot be read"),
    broken_log("JSONL named CSV", JSONL, sees="events.csv is JSON by its content"),
    broken_log("CSV named JSONL", CSV, form="jsonl", sees="has no line that is a JSON object"),
    broken_log("UTF-16 with a mark", CSV.decode().encode("utf-16"), sees="events.csv is UTF-16. Write it as UTF-8"),
    broken_log(
        "UTF-16 with a mark", JSONL.decode().encode("utf-16"), form="jsonl", sees="events.jsonl is UTF-16. Write it"
    ),
    broken_log("UTF-16 without a mark", CSV.decode().encode("utf-16-le"), sees="events.csv has a NUL byte"),
    broken_log("UTF-32 with a mark", CSV.decode().encode("utf-32"), sees="events.csv is UTF-32. Write it as UTF-8"),
    broken_log(
        "a line in Latin-1",
        CSV + "u1,café,purchase,2024-05-01T11:00:00Z,s1,1,2\n".encode("latin-1"),
        ends=QUARANTINED,
        sees="line cannot be read",
        put_aside=1,
    ),
    broken_log(
        "a header in Latin-1",
        "user_id,item_id,event_type,timestamp,größe\n".encode("latin-1") + b"u,i,view,2024-05-01,1\n",
        sees="events.csv is no UTF-8",
    ),
    broken_log(
        "a line in Latin-1",
        JSONL + b'{"user_id": "u", "item_id": "caf\xe9", "event_type": "view", "timestamp": "2024-05-01"}\n',
        form="jsonl",
        ends=QUARANTINED,
        sees="line cannot be read",
        put_aside=1,
    ),
    broken_log("a UTF-8 mark", b"\xef\xbb\xbf" + CSV, ends=READ, sees="12 rows = 12 kept"),
    broken_log("a UTF-8 mark", b"\xef\xbb\xbf" + JSONL, form="jsonl", ends=READ, sees="12 rows = 12 kept"),
    broken_log("Windows line ends", CSV.replace(b"\n", b"\r\n"), ends=READ, sees="12 rows = 12 kept"),
    broken_log("old Mac line ends", CSV.replace(b"\n", b"\r"), ends=READ, sees="12 rows = 12 kept"),
    BrokenInput(
        name="a UTF-8 mark in the second of two files",
        make=_folder_of(("1.csv", CSV), ("2.csv", b"\xef\xbb\xbf" + _good_day(2))),
        events="logs",
        ends=READ,
        sees="24 rows = 24 kept",
        kept=24,
    ),
    broken_log(
        "two files run together, with their headers",
        CSV + _good_day(2),
        ends=QUARANTINED,
        sees="timestamp is not a time",
        kept=24,
        put_aside=1,
    ),
)

FILES = (*GONE, *EMPTY, *CUT, *OTHER_BYTES)
