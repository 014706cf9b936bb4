"""Session pairs kept a day: a day that is unchanged is read, not expanded again.

A day's rows name events by their position from the day's first event on, negative for the events of a session that
began on an earlier day; no user and no item is in them. They are found by a key over the files that they came from, so
that a log with some days changed expands these alone and has the pairs of a full rebuild. A run writes its new days
into one file, a pack; many packs are written anew as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from components.core.artifact import write_parquet
from components.core.errors import ArtifactError
from components.core.hashing import code_sha256, file_sha256, json_sha256
from components.core.schemas import EVENT_WEIGHTS, TARGET_EVENT_TYPES
from components.core.shortcut import read_shortcut, write_shortcut
from components.core.store import Store
from components.graph.session_pairs import PAIR_KINDS, Ints, Pairs, SessionEvents, expand

TABLE = "tables/session_pairs"
_STATE = f"{TABLE}/state.json"
MAX_PACKS = 32


@dataclass(frozen=True, kw_only=True)
class LogDay:
    """A day of the log as far as it is read: up to a cutoff."""

    day: date
    sha256: str  # of its file
    rows: int  # events of it that SessionEvents has


@dataclass(frozen=True)
class DayPairs:
    """All pairs of a log, by kind, and which of its days had to be expanded."""

    pairs: Mapping[str, Pairs]
    expanded: Sequence[date]


class _Pack(BaseModel):
    """A file of days: `days` maps a day's key to its first row and its rows of each kind, one kind after the other."""

    model_config = ConfigDict(frozen=True)

    path: str
    sha256: str
    days: dict[str, tuple[int, ...]]


def all_pairs(events: SessionEvents, days: Sequence[LogDay], *, num_items: int, store: Store | None) -> DayPairs:
    """`days` in order; day n has the events with `day_E == n`. Without a store every day is expanded."""
    if store is None or not days:
        wanted = np.ones(max(len(days), 1), dtype=bool)
        return DayPairs(expand(events, num_items=num_items, is_wanted_day=wanted), [one.day for one in days])
    keys = _keys(events, days)
    packs = _read_state(store)
    kept = _read_packs(store, packs, set(keys))
    wanted = np.array([key not in kept for key in keys], dtype=bool)
    first = np.searchsorted(events.day_E, np.arange(len(days) + 1))
    if wanted.any():
        fresh = expand(events, num_items=num_items, is_wanted_day=wanted)
        bounds = {kind: np.searchsorted(pairs.later_P, first) for kind, pairs in fresh.items()}
        if all(wanted):
            _write(store, [], [_of_day(fresh, bounds, n) for n in range(len(days))], -first[:-1], keys)
            return DayPairs(fresh, [one.day for one in days])
    # What was kept counts from its day's first event on, what is fresh from the log's.
    of_days = [kept[key] if key in kept else _of_day(fresh, bounds, n) for n, key in enumerate(keys)]
    origin = np.where(wanted, 0, first[:-1])
    if wanted.any():
        in_use = [pack for pack in packs if set(pack.days) & set(keys)]
        written = np.arange(len(days)) if len(in_use) >= MAX_PACKS else np.flatnonzero(wanted)
        _write(
            store,
            [] if len(in_use) >= MAX_PACKS else in_use,
            [of_days[n] for n in written],
            (origin - first[:-1])[written],
            [keys[n] for n in written],
        )
    whole = {kind: _joined([one[kind] for one in of_days], origin) for kind in PAIR_KINDS}
    return DayPairs(whole, [one.day for one, is_wanted in zip(days, wanted, strict=True) if is_wanted])


def _keys(events: SessionEvents, days: Sequence[LogDay]) -> list[str]:
    """A key a day: its file and those that its sessions reach back into, each as far as it is read."""
    if not days:
        return []
    shared = {
        "code": code_sha256(("components.graph.session_pairs", "components.graph.day_pairs")),
        "targets": TARGET_EVENT_TYPES,
        "weights": EVENT_WEIGHTS,
    }
    reach_D = np.arange(len(days))
    at = np.flatnonzero(events.session_E >= 0)
    if len(at):
        session, day = events.session_E[at], events.day_E[at]
        begin = np.zeros(int(session.max()) + 1, dtype=np.int64)
        begin[session[::-1]] = day[::-1]  # backwards: what is written last, the first event's day, stays
        np.minimum.at(reach_D, day, begin[session])
    named = [(one.sha256, one.rows) for one in days]
    return [json_sha256({**shared, "days": named[reach_D[n] : n + 1]})[:32] for n in range(len(days))]


def _read_state(store: Store) -> list[_Pack]:
    return [_Pack.model_validate(pack) for pack in read_shortcut(store, _STATE) or ()]


def _read_packs(store: Store, packs: Sequence[_Pack], keys: set[str]) -> dict[str, Mapping[str, Pairs]]:
    """Positions from each day's first event on, of the days that are asked for and there."""
    found: dict[str, Mapping[str, Pairs]] = {}
    for pack in packs:
        asked = keys & set(pack.days)
        if not asked:
            continue
        try:
            table = pq.read_table(store.fetch(pack.path, sha256=pack.sha256))
        except ArtifactError:
            continue  # a pack that is gone or damaged is made again
        earlier, later = table["earlier"].to_numpy(), table["later"].to_numpy()
        for key in asked:
            bounds = np.cumsum(pack.days[key])
            found[key] = {
                kind: Pairs(earlier[start:end], later[start:end])
                for kind, start, end in zip(PAIR_KINDS, bounds[:-1], bounds[1:], strict=True)
            }
    return found


def _write(
    store: Store, others: Sequence[_Pack], of_days: Sequence[Mapping[str, Pairs]], shift_D: Ints, keys: Sequence[str]
) -> None:
    """Publish a pack of the days, shifted to count from each one's first event, then the state that names all packs."""
    parts = [one[kind] for one in of_days for kind in PAIR_KINDS]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])[:: len(PAIR_KINDS)]
    sizes = [tuple(len(one[kind]) for kind in PAIR_KINDS) for one in of_days]
    joined = _joined(parts, np.repeat(shift_D, len(PAIR_KINDS)))
    with store.staging() as folder:
        local = Path(folder) / "pack.parquet"
        table = pa.table({"earlier": joined.earlier_P, "later": joined.later_P})
        write_parquet(table, local, dictionaries=(), has_statistics=False)
        sha256 = file_sha256(local)
        relative = f"{TABLE}/{sha256[:20]}.parquet"
        store.put_file(local, relative)
    rows = {key: (int(start), *size) for key, start, size in zip(keys, starts, sizes, strict=False)}
    packs = [*others, _Pack(path=relative, sha256=sha256, days=rows)]
    with store.lock("table-session_pairs", doing="writing the table 'session_pairs'", timeout_seconds=60):
        write_shortcut(store, _STATE, [pack.model_dump(mode="json") for pack in packs])


def _of_day(pairs: Mapping[str, Pairs], bounds: Mapping[str, Ints], day: int) -> dict[str, Pairs]:
    of_day = {}
    for kind, whole in pairs.items():
        start, end = bounds[kind][day], bounds[kind][day + 1]
        of_day[kind] = Pairs(whole.earlier_P[start:end], whole.later_P[start:end])
    return of_day


def _joined(parts: Sequence[Pairs], shifts: Ints) -> Pairs:
    """One after the other, each part's positions shifted."""
    ends = np.cumsum([0, *map(len, parts)])
    whole = Pairs(np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1], dtype=np.int32))
    for part, shift, start, end in zip(parts, shifts.astype(np.int32), ends[:-1], ends[1:], strict=True):
        np.add(part.earlier_P, shift, out=whole.earlier_P[start:end])
        np.add(part.later_P, shift, out=whole.later_P[start:end])
    return whole
