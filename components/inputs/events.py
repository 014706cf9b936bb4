"""The clean log as integers, cut by time: what was known at a moment, and what users took in a window.

Legend of shape suffixes: E events, U users, I items of the bundle, X items that the bundle does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from components.core.errors import ContractError
from components.core.schemas import EVENT_WEIGHTS, RATED_EVENTS, TARGET_EVENT_TYPES, UNLISTED_EVENT_WEIGHT
from components.core.split import Window
from components.measures.interactions import Interactions

_COLUMNS = ["user_id", "item_id", "event_type", "timestamp"]
_DAY_US = 86_400_000_000

Track = Callable[[Sequence[Path]], Iterable[Path]]


@dataclass(frozen=True, kw_only=True)
class EventLog:
    """Events of known users; those of anonymous sessions and those without weight are left out."""

    user_ids: pa.StringArray  # (U,) sorted
    num_items: int
    num_unknown_items: int
    target_types: tuple[str, ...]
    user_E: np.ndarray
    item_E: np.ndarray  # index in the bundle's table; from I on, an item that the bundle does not know
    time_us_E: np.ndarray
    weight_E: np.ndarray
    is_target_E: np.ndarray
    rating_E: np.ndarray | None = None
    """nan where the event has none; None where they were not asked for."""

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    def known_at(self, moment: datetime, *, category: np.ndarray) -> Interactions:
        """All users' events before `moment` with items of the bundle. `category` (I,): number, -1 for none."""
        at_us = _microseconds(moment)
        chosen = (self.time_us_E < at_us) & (self.item_E < self.num_items)
        return Interactions.of(
            users=self.user_E[chosen],
            items=self.item_E[chosen],
            weights=self.weight_E[chosen],
            ages_days=(at_us - self.time_us_E[chosen]) / _DAY_US,
            category=category,
            num_users=self.num_users,
        )

    def ratings_in(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """-> users, items (of the bundle) and ratings given in the window, by user and item; the last of each pair."""
        assert self.rating_E is not None
        chosen = np.flatnonzero(self._is_in(window) & ~np.isnan(self.rating_E) & (self.item_E < self.num_items))
        chosen = chosen[np.argsort(self.time_us_E[chosen], kind="stable")]
        pair = self.user_E[chosen] * self.num_items + self.item_E[chosen]
        _, last = np.unique(pair[::-1], return_index=True)
        kept = chosen[len(chosen) - 1 - last]
        return self.user_E[kept], self.item_E[kept], self.rating_E[kept]

    def _is_in(self, window: Window) -> np.ndarray:
        return (self.time_us_E >= _microseconds(window.start)) & (self.time_us_E < _microseconds(window.end))

    def targets_in(self, window: Window) -> sp.csr_matrix:
        """(U, I + X): 1 for each item that the user took in the window. No list can hold one of the last X."""
        chosen = self.is_target_E & self._is_in(window)
        shape = (self.num_users, self.num_items + self.num_unknown_items)
        taken = sp.csr_matrix(
            (np.ones(chosen.sum(), dtype=np.float32), (self.user_E[chosen], self.item_E[chosen])), shape=shape
        )
        taken.sum_duplicates()
        taken.data[:] = 1
        return taken


def read_events(
    paths: Sequence[Path], *, item_ids: pa.StringArray, track: Track, with_ratings: bool = False
) -> EventLog:
    """Day partitions of schema EVENTS or RATED_EVENTS -> the log, with items as positions in `item_ids`."""
    columns = [*_COLUMNS, "rating"] if with_ratings else _COLUMNS
    days = [
        pq.read_table(path, columns=columns, schema=RATED_EVENTS).unify_dictionaries()
        if with_ratings
        else pq.read_table(path, columns=columns).unify_dictionaries()
        for path in track(paths)
    ]
    if not days:
        raise ContractError("The clean log has no day. Ingest events before evaluating.")
    table = pa.concat_tables(days)
    table = table.filter(pc.is_valid(table["user_id"]))
    kind = table["event_type"].combine_chunks().dictionary_encode()
    kinds = kind.dictionary.to_pylist()
    kind_E = kind.indices.to_numpy()
    weight_E = np.array([EVENT_WEIGHTS.get(name, UNLISTED_EVENT_WEIGHT) for name in kinds], dtype=np.float64)[kind_E]
    wanted = target_types(kinds)
    is_target_E = np.array([name in wanted for name in kinds], dtype=bool)[kind_E]
    user_ids, user_E = _codes(table["user_id"])
    known_ids, known_E = _codes(table["item_id"])
    item_of_id, num_unknown = _positions(known_ids, item_ids)
    chosen = weight_E > 0
    return EventLog(
        user_ids=user_ids,
        num_items=len(item_ids),
        num_unknown_items=num_unknown,
        target_types=wanted,
        user_E=user_E[chosen],
        item_E=item_of_id[known_E[chosen]],
        time_us_E=table["timestamp"].combine_chunks().cast(pa.int64()).to_numpy()[chosen],
        weight_E=weight_E[chosen],
        is_target_E=is_target_E[chosen],
        rating_E=table["rating"].combine_chunks().fill_null(np.nan).to_numpy()[chosen] if with_ratings else None,
    )


def target_types(kinds: Iterable[str]) -> tuple[str, ...]:
    """The event types that a hit is counted for: purchases; in a log without any, the strongest type that it has."""
    present = set(kinds)
    wanted = tuple(kind for kind in TARGET_EVENT_TYPES if kind in present)
    if wanted:
        return wanted
    weights = {kind: EVENT_WEIGHTS.get(kind, UNLISTED_EVENT_WEIGHT) for kind in present}
    strongest = max(weights.values(), default=0.0)
    if not strongest > 0:
        raise ContractError(
            f"No event of the log states a want: its types are {', '.join(sorted(present)) or 'none'}. "
            f"Evaluation needs one of {', '.join(kind for kind, weight in EVENT_WEIGHTS.items() if weight > 0)}."
        )
    return tuple(sorted(kind for kind, weight in weights.items() if weight == strongest))


def _codes(column: pa.ChunkedArray) -> tuple[pa.StringArray, np.ndarray]:
    """Distinct values in sorted order, and the position of each row's value among them."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy()]


def _positions(ids: pa.StringArray, item_ids: pa.StringArray) -> tuple[np.ndarray, int]:
    """Position of each id in `item_ids`; the ids that are not there follow, one after the other."""
    found = pc.index_in(ids, value_set=item_ids)
    is_unknown = found.is_null().to_numpy(zero_copy_only=False)
    position = found.fill_null(0).to_numpy().astype(np.int64)
    position[is_unknown] = len(item_ids) + np.arange(is_unknown.sum())
    return position, int(is_unknown.sum())


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
