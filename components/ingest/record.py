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

_PATH = "tables/events/written_by.json"


def overwritten(store: Store, days: Mapping[date, Partition], *, source: str, day: date | None) -> Any:
    """What an ingest of `source` (of `day` alone, or whole) overwrites: None, or a hash of what others wrote there.

    It enters the step's key. After `remember` the same ingest gets the same answer, until somebody else writes.
    """
    present = _present(days, day)
    last = _read(store).get(_slot(day))
    if last is not None and last["source"] == source and last["wrote"] == present:
        return last["overwrote"]
    return present


def remember(store: Store, days: Mapping[date, Partition], *, source: str, day: date | None, overwrote: Any) -> None:
    """Note that `source` has written the table, or one day of it; `days` is the state after."""
    written = {} if day is None else _read(store)
    written[_slot(day)] = {"source": source, "wrote": _present(days, day), "overwrote": overwrote}
    store.write_json(_PATH, written)


def other_days(days: Mapping[date, Partition], day: date | None) -> str | None:
    """Hash of the days that an ingest of `day` alone takes over as they are."""
    return None if day is None else _digest({other: part for other, part in days.items() if other != day})


def _present(days: Mapping[date, Partition], day: date | None) -> str | None:
    if day is None:
        return _digest(days) if days else None
    return days[day].sha256 if day in days else None


def _slot(day: date | None) -> str:
    return "whole" if day is None else day.isoformat()


def _read(store: Store) -> dict[str, Any]:
    return store.read_json(_PATH) if store.exists(_PATH) else {}


def _digest(days: Mapping[date, Partition]) -> str:
    return json_sha256({day.isoformat(): part.sha256 for day, part in days.items()})
