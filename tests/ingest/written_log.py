"""Rows of the contract as files, as a shop would write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.schemas import EVENTS

COLUMNS = ("user_id", "item_id", "event_type", "timestamp", "session_id", "quantity", "price")


def write_log(rows: Sequence[dict[str, Any]], folder: Path, form: str) -> Path:
    """A log of `form` in `folder`; a null is an empty field in CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.{form}"
    if form == "parquet":
        schema = pa.schema([EVENTS.field(name).with_nullable(True) for name in COLUMNS])
        pq.write_table(pa.table({name: [row[name] for row in rows] for name in COLUMNS}, schema=schema), path)
        return path
    plain = [{name: _plain(row[name]) for name in COLUMNS} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as stream:
        if form == "jsonl":
            stream.writelines(json.dumps(row) + "\n" for row in plain)
        else:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(plain)
    return path


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
