"""Which source the events table's days were written from, so that an unchanged ingest is reused, and only then.

An artifact may be reused only while the table still holds what its run wrote: otherwise a day that was replaced since
would stay replaced in the table although the run that is 'reused' had another version of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from components.core.artifact import Partition
from components.core.hashing import json_sha256
from components.core.store import Store

_PATH = "tables/events/sources.json"


def table_state(store: Store, days: Mapping[date, Partition], *, source: str, day: date | None) -> Any:
    """What of the table's present state must enter the key of an ingest of `source` (of `day` alone, or whole)."""
    written = _read(store)
    if day is None:
        is_ours = not days or written["whole"] == {"source": source, "table": _digest(days)}
        return None if is_ours else _digest(days)
    others = _digest({other: part for other, part in days.items() if other != day})
    own = days.get(day)
    is_ours = own is None or written["days"].get(day.isoformat()) == {"source": source, "sha256": own.sha256}
    return [others, None if is_ours or own is None else own.sha256]


def remember(store: Store, days: Mapping[date, Partition], *, source: str, day: date | None) -> None:
    """Note that `source` has written the table (or one day of it); `days` is the state after."""
    if day is None:
        written: dict[str, Any] = {"whole": {"source": source, "table": _digest(days)}, "days": {}}
    else:
        written = _read(store)
        written["days"][day.isoformat()] = {"source": source, "sha256": days[day].sha256}
    store.write_json(_PATH, written)


def _read(store: Store) -> dict[str, Any]:
    return store.read_json(_PATH) if store.exists(_PATH) else {"whole": None, "days": {}}


def _digest(days: Mapping[date, Partition]) -> str:
    return json_sha256({day.isoformat(): part.sha256 for day, part in days.items()})
