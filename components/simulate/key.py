"""The key: what is in the log, and what was planted where. Tests and benches check findings against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from pydantic import BaseModel, ConfigDict

from components.simulate.settings import Drift, WorldSettings

FORMAT_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DayFile(_Record):
    """One file of the log."""

    day: date
    path: str
    rows: int
    """As written: defects, doubles and late arrivals included."""
    renamed: Mapping[str, str] = {}
    """Column of the contract -> name in this file."""


class LateRows(_Record):
    """Clean rows that are not in their own day's file."""

    day: date
    arrived: date
    rows: int


class Key(_Record):
    """`key.json`. Single damaged rows are listed in `planted.parquet`: file_day, event_id, kind."""

    format_version: int = FORMAT_VERSION
    settings: WorldSettings
    as_of: datetime
    """The end of the log: judge 'future' and 'stale' against it."""
    rows: int
    """In all files."""
    clean_rows: int
    """Rows that keep the contract, each counted once."""
    sessions: int
    anonymous_sessions: int
    event_types: Mapping[str, int]
    """Events by type before planting."""
    planted_rows: Mapping[str, int]
    """By kind; a duplicate counts its second copy."""
    files: Sequence[DayFile]
    late: Sequence[LateRows]
    drifts: Sequence[Drift]
    favoured_category: str
    """Where a drift of kind 'category' leads."""
