"""What is known of the one who asks: online features, what they did since, what the request tells."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.model.bundle import PAUSE_SECONDS
from components.model.histories import Histories
from feature_repo.stored_values import StoredStrings, record, record_offsets
from serving.fresh import FreshEvent
from serving.online import Floats, OnlineUser
from serving.schemas import RecentItem, Source

DAY_SECONDS = 86_400.0
NUMBERS_AT_ONCE = 512
ITEMS_AN_ENTRY = 8  # a table of all items is worth making for one entry of a history for so many items

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """One user's history, most recent item first, as rows of the bundle."""

    items: list[int] | Ints
    weights: list[float] | Floats
    ages_days: list[float] | Floats
    statistics: Mapping[str, float]
    source: Source
    feature_age_seconds: float | None
    fresh_events: int
    unknown_items: list[str]


def know(
    asked: Sequence[str | RecentItem],
    user: OnlineUser | None,
    fresh: Sequence[FreshEvent],
    *,
    rows: ItemRows,
    now: datetime,
    max_history: int,
) -> Known:
    """Join the three: an item's weights are added, its youngest age counts.

    A fresh event from before the features' own moment is in them already and is left out.
    """
    if user is not None and not asked and not fresh and (plain := _online_alone(user, rows)) is not None:
        items, weights, ages = plain
        return Known(
            items=items[:max_history],
            weights=weights[:max_history],
            ages_days=ages[:max_history],
            statistics=user.statistics,
            source="online_store",
            feature_age_seconds=user.age_seconds,
            fresh_events=0,
            unknown_items=[],
        )
    weight_of: dict[int, float] = {}
    age_of: dict[int, float] = {}
    unknown: list[str] = []

    def add(item_id: str, weight: float, age_days: float) -> bool:
        row = rows.index.get(item_id)
        if row is None:
            return False
        weight_of[row] = weight_of.get(row, 0.0) + weight
        age_of[row] = min(age_of.get(row, math.inf), age_days)
        return True

    is_asked = is_online = False
    for entry in asked:
        recent = entry if isinstance(entry, RecentItem) else RecentItem(item_id=entry)
        if add(recent.item_id, recent.weight, recent.age_days):
            is_asked = True
        elif recent.item_id not in unknown:
            unknown.append(recent.item_id)
    if user is not None:
        for item_id, weight, age_days in zip(user.items, _list(user.weights), _list(user.ages_days), strict=True):
            is_online |= add(item_id, weight, max(age_days, 0.0))
    num_fresh = 0
    if fresh:
        now_seconds = now.timestamp()
        known_until = -math.inf if user is None else user.known_until(now).timestamp()
        for event in fresh:
            if event.seconds >= known_until and event.weight > 0:
                age_days = max(now_seconds - event.seconds, 0.0) / DAY_SECONDS
                num_fresh += add(event.item_id, event.weight, age_days)

    kept = sorted(weight_of, key=lambda row: age_of[row])[:max_history]
    return Known(
        items=kept,
        weights=[weight_of[row] for row in kept],
        ages_days=[age_of[row] for row in kept],
        statistics=user.statistics if user is not None else {},
        source=_source(is_online=is_online, is_fresh=num_fresh > 0, is_asked=is_asked),
        feature_age_seconds=user.age_seconds if user is not None and is_online else None,
        fresh_events=num_fresh,
        unknown_items=unknown,
    )


def _online_alone(user: OnlineUser, rows: ItemRows) -> tuple[Ints, Floats, Floats] | None:
    """Most requests: the stored history as it is, where it needs no joining. A tenth of what joining costs."""
    if not len(user.items):
        return None
    items_N = rows.of_ids(user.items)
    rising_N = np.sort(items_N)
    ages_N = np.asarray(user.ages_days, np.float32)
    is_odd = rising_N[0] < 0 or (rising_N[1:] == rising_N[:-1]).any() or ages_N[0] < 0
    if is_odd or (ages_N[1:] < ages_N[:-1]).any():
        return None
    return items_N, np.asarray(user.weights, np.float32), ages_N


class ItemRows:
    """Rows of the bundle by item id, for one history or for a batch of them."""

    def __init__(self, index: Mapping[str, int]) -> None:
        """`index`: the items in the order of their rows."""
        self.index = index
        hashes_I = _in_turns(map(hash, index), len(index)).view(np.uint64)
        self._row_of_hash: Ints = np.argsort(hashes_I)
        self._hashes = hashes_I[self._row_of_hash]
        self._are_distinct = not (self._hashes[1:] == self._hashes[:-1]).any()
        # Hashes are spread evenly, so their first bits say where to look, but for a step or two.
        bits = len(index).bit_length() + 1
        self._shift = np.uint64(64 - bits)
        firsts = np.arange(2**bits, dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(self._hashes, firsts).astype(np.int32)
        self._hashes = np.append(self._hashes, np.uint64(2**64 - 1))  # the search ends here, if nowhere before
        self._row_of_hash = np.append(self._row_of_hash, -1)

    def of_ids(self, item_ids: Sequence[str]) -> Ints:
        """The row of each id, -1 where there is none.

        By 64-bit hashes, side by side: a dictionary of all items fetches key, number and entry of each from all over
        the memory. That an id of no item has an item's hash is one chance in 2^64 for each item; its user's history
        would then have that item too.
        """
        if not self._are_distinct:
            return np.array([self.index.get(item_id, -1) for item_id in item_ids], np.int64)
        wanted = np.fromiter(map(hash, item_ids), np.int64, len(item_ids)).view(np.uint64)
        at = self._starts.take((wanted >> self._shift).astype(np.intp))
        while (is_before := self._hashes.take(at) < wanted).any():
            at += is_before
        found: Ints = np.where(self._hashes.take(at) == wanted, self._row_of_hash.take(at), -1)
        return found

    @cached_property
    def _records(self) -> pa.Array:
        return pa.array([record(item_id) for item_id in self.index], pa.binary())  # made by the first batch

    def of_records(self, records: bytes, offsets: Ints) -> Ints:
        """The row of each record (feature_repo/stored_values.py), -1 where there is none."""
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(records)]
        found = pc.index_in(pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers), value_set=self._records)
        rows: Ints = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return rows


def know_many(
    users: Sequence[OnlineUser | None],
    fresh: Sequence[Sequence[FreshEvent]],
    *,
    rows: ItemRows,
    now: datetime,
    max_history: int,
) -> list[Known]:
    """`know` for each of many users. Stored histories that need no joining are read as one."""
    plain = {
        place: user
        for place, (user, events) in enumerate(zip(users, fresh, strict=True))
        if user is not None and not events and 0 < len(user.weights) <= max_history
    }
    together = dict(zip(plain, _online_together(list(plain.values()), rows), strict=True))
    return [
        together.get(place) or know((), user, events, rows=rows, now=now, max_history=max_history)
        for place, (user, events) in enumerate(zip(users, fresh, strict=True))
    ]


def _online_together(users: Sequence[OnlineUser], rows: ItemRows) -> Sequence[Known | None]:
    """`_online_alone` for many; None too where a history is not stored as most are."""
    nothing: list[Known | None] = [None] * len(users)
    stored = [user.items.records if isinstance(user.items, StoredStrings) else None for user in users]
    lengths_B = np.fromiter((len(user.weights) for user in users), np.int64, len(users))
    if lengths_B.sum() * ITEMS_AN_ENTRY < len(rows.index):
        return nothing
    records = [one or b"" for one in stored]
    joined = b"".join(records)
    offsets = record_offsets(joined)
    if offsets is None or len(joined) >= 2**31:
        return nothing
    byte_B = np.cumsum([0, *map(len, records)])
    starts_B = np.searchsorted(offsets, byte_B)
    # A user whose list is no records has none here; one of another length is not as it should be.
    is_plain_B = np.diff(starts_B) == lengths_B
    is_plain_B &= np.fromiter((len(user.ages_days) for user in users), np.int64, len(users)) == lengths_B
    if not is_plain_B.all():
        kept = np.flatnonzero(is_plain_B).tolist()
        if not kept:
            return nothing
        for at, one in zip(kept, _online_together([users[at] for at in kept], rows), strict=True):
            nothing[at] = one
        return nothing
    starts_B, user_N = starts_B[:-1], np.repeat(np.arange(len(users)), lengths_B)
    items_N = rows.of_records(joined, offsets)
    weights_N = _joined([user.weights for user in users], np.float32)
    ages_N = _joined([user.ages_days for user in users], np.float32)
    is_odd_N = items_N < 0
    is_odd_N[1:] |= (ages_N[1:] < ages_N[:-1]) & (user_N[1:] == user_N[:-1])
    is_odd_N[starts_B] |= ages_N[starts_B] < 0
    key_N = np.sort(user_N * len(rows.index) + items_N)
    is_odd_N[1:] |= key_N[1:] == key_N[:-1]  # in whatever place of the user's: the order of users is kept
    return [
        None
        if is_odd
        else Known(
            items=items_N[start : start + length],
            weights=weights_N[start : start + length],
            ages_days=ages_N[start : start + length],
            statistics=user.statistics,
            source="online_store",
            feature_age_seconds=user.age_seconds,
            fresh_events=0,
            unknown_items=[],
        )
        for user, is_odd, start, length in zip(
            users,
            np.logical_or.reduceat(is_odd_N, starts_B).tolist(),
            starts_B.tolist(),
            lengths_B.tolist(),
            strict=True,
        )
    ]


def histories_of(known: Sequence[Known]) -> Histories:
    """One row a user."""
    lengths = np.fromiter((len(one.items) for one in known), np.int64, len(known))
    return Histories(
        indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        items=torch.from_numpy(_joined([one.items for one in known], np.int64)),
        weights=torch.from_numpy(_joined([one.weights for one in known], np.float32)),
        ages_days=torch.from_numpy(_joined([one.ages_days for one in known], np.float32)),
    )


def statistics_of(known: Sequence[Known], names: Sequence[str]) -> Tensor:
    """(B, F) float32, nan where unknown."""
    rows = [[one.statistics.get(name, math.nan) for name in names] for one in known]
    return torch.from_numpy(np.array(rows, np.float32).reshape(len(known), len(names)))


def _in_turns(numbers: Iterable[int], count: int) -> Ints:
    """(count,) With pauses, since others want the interpreter too."""
    found, rest = np.empty(count, np.int64), iter(numbers)
    for start in range(0, count, NUMBERS_AT_ONCE):
        size = min(NUMBERS_AT_ONCE, count - start)
        found[start : start + size] = np.fromiter(rest, np.int64, size)
        time.sleep(PAUSE_SECONDS)
    return found


def _joined(parts: Sequence[Sequence[float] | npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    if len(parts) == 1:
        return np.array(parts[0], dtype)
    return np.concatenate([np.asarray(part, dtype) for part in parts])


def _list(values: Sequence[float] | Floats) -> list[float]:
    found: list[float] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return found


def _source(*, is_online: bool, is_fresh: bool, is_asked: bool) -> Source:
    if is_online or is_fresh:
        if is_asked:
            return "both"
        return "online_store" if is_online else "events"
    return "request" if is_asked else "popularity"
