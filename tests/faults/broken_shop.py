"""A shop whose log or catalogue is broken, and what a person sees who reads it.

Good rows are made here, so that a case of the corpus says only what is wrong with it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMS = ("csv", "jsonl", "parquet")
REFUSED, QUARANTINED, READ = "refused", "quarantined", "read"

Row = dict[str, Any]


def good_rows(count: int = 12) -> list[Row]:
    """Purchases on one day, spoilt rows not among them."""
    return [
        {
            "user_id": f"u{number % 3}",
            "item_id": f"i{number % 6}",
            "event_type": "purchase",
            "timestamp": f"2024-05-01T10:{number:02d}:00Z",
            "session_id": f"s{number % 3}",
            "quantity": 1,
            "price": 2.5,
        }
        for number in range(count)
    ]


def with_bad_row(**changes: Any) -> list[Row]:
    """The good rows, and one more with these changes."""
    return [*good_rows(), {**good_rows(13)[12], **changes}]


def good_items() -> list[Row]:
    return [{"item_id": f"i{number}", "title": f"Item {number}", "category": "c", "price": 2.5} for number in range(6)]


def encode(rows: Sequence[Row], form: str, *, types: Mapping[str, pa.DataType] | None = None) -> bytes:
    """Rows as a file's bytes. In parquet `types` says what a column is; else pyarrow guesses from the values."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([["" if row.get(name) is None else row[name] for name in columns] for row in rows])
        return text.getvalue().encode()
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    arrays = {name: pa.array([row.get(name) for row in rows], (types or {}).get(name)) for name in columns}
    return parquet_bytes(pa.table(arrays))


def parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="none")
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True, kw_only=True)
class BrokenInput:
    """One input of the corpus. `make` writes files under the shop's folder; without a catalogue there is none."""

    name: str
    """What is wrong, as docs/data-contract.md says it."""
    make: Callable[[Path], None]
    events: str = "events.csv"
    catalog: str | None = None
    ends: str
    """REFUSED: one sentence, status 1. QUARANTINED: put aside with a reason. READ: taken for what it is."""
    sees: str
    """Part of the sentence; the reason of the row put aside; or what is read."""
    kept: int = 12
    """Rows kept where the log is not refused."""
    put_aside: int = 0
    ids: tuple[str, ...] = ()
    """Item ids that must come out as they went in."""
    may_hang: bool = False
    """Reading what never ends: looked at in a process of its own."""

    @property
    def table(self) -> str:
        return "catalogue" if self.catalog else "log"

    @property
    def form(self) -> str:
        path = self.catalog or self.events
        if "://" in path:
            return "URI"
        ending = Path(path.removesuffix(".gz")).suffix.removeprefix(".").upper()
        return {"JSON": "JSONL", "PARQUET": "parquet"}.get(ending, ending) or "folder"

    def environment(self, shop: Path, home: Path) -> dict[str, str]:
        """Settings of a run over this input."""
        source = {"PROFILE": "contract", "EVENTS": _place(shop, self.events)}
        if self.catalog is not None:
            source["CATALOG"] = _place(shop, self.catalog)
        variables = {f"BASKETWEAVE_SOURCE__{name}": value for name, value in source.items()}
        return {**variables, "BASKETWEAVE_HOME": str(home)}


def _place(shop: Path, location: str) -> str:
    return location if "://" in location else str(shop / location)


def broken_log(
    name: str, data: bytes | str, *, form: str = "csv", ends: str = REFUSED, sees: str, **more: Any
) -> BrokenInput:
    """A log of one file with these bytes."""
    file = f"events.{form}"
    content = data.encode() if isinstance(data, str) else data
    return BrokenInput(
        name=name, make=lambda shop: _write(shop / file, content), events=file, ends=ends, sees=sees, **more
    )


def broken_catalog(name: str, data: bytes | str, *, form: str = "csv", sees: str, **more: Any) -> BrokenInput:
    """A good log beside a catalogue of one file with these bytes."""
    file = f"catalog.{form}"
    content = data.encode() if isinstance(data, str) else data

    def make(shop: Path) -> None:
        _write(shop / "events.csv", encode(good_rows(), "csv"))
        _write(shop / file, content)

    return BrokenInput(name=name, make=make, catalog=file, sees=sees, **{"ends": REFUSED, **more})


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@dataclass(frozen=True)
class Seen:
    """What one command left on the screen."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        return self.err.strip().removeprefix("basketweave:").strip()


def run_step(step: str, capture: Any, *options: str) -> Seen:
    """`basketweave step <step>` in this process, as its command line does it. `capture` is pytest's capfd."""
    from components.cli import main

    given, sys.argv = sys.argv, ["basketweave", "step", step, *options]
    try:
        main()
        status = 0
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    finally:
        sys.argv = given
    out, err = capture.readouterr()
    return Seen(status, out, err)


def without_paths(text: str, shop: Path, home: Path) -> str:
    """What was seen, the same on every machine and in every run."""
    text = text.replace(str(home), ".basketweave").replace(str(shop), "shop")
    text = re.sub(r"manual-\d{8}T\d{6}", "RUN", text)
    return " ".join(text.split())
