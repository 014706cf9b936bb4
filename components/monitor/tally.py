"""A day's events as counts that can be added: of two days, of a week, of the whole reference.

So a window of any length costs a sum, a day is read once, and no row or user outlives the reading. A new kind of
feature is one entry of a tally here and one measure in measures.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.schemas import EVENT_WEIGHTS, UNLISTED_EVENT_WEIGHT
from components.measures.drift import Floats, bin_counts, quantile_edges
from components.monitor.lens import POPULARITY_BINS, Ints, Lens, depth_edges, positions

COLUMNS = ["user_id", "item_id", "event_type", "timestamp", "session_id", "quantity", "price"]
FEATURE_BINS = 10
# Rows of a reference day that are looked at to cut the bins.
SAMPLE_ROWS = 20_000
STRONG_WEIGHT = 0.5
_HOUR_US = 3_600_000_000

Tally = Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Bins:
    """How values are told apart: cut once, from the reference, so that every window is counted alike."""

    event_types: tuple[str, ...]
    """Kinds of the reference; any other counts as one more."""
    price: Floats
    quantity: Floats
    session_events: Floats
    depth: Floats

    def plain(self) -> dict[str, Any]:
        return {name: list(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_plain(cls, content: Mapping[str, Sequence[Any]]) -> Bins:
        edges = {name: np.asarray(values, np.float64) for name, values in content.items() if name != "event_types"}
        return cls(event_types=tuple(content["event_types"]), **edges)


def cut_bins(days: Iterable[pa.Table], lens: Lens) -> Bins:
    """Quantile bins of some rows of each reference day."""
    kinds: set[str] = set()
    price, quantity, sizes = [], [], []
    for table in days:
        kinds.update(pc.unique(table["event_type"]).to_pylist())
        some = table.slice(0, SAMPLE_ROWS)
        price.append(_floats(some["price"]))
        quantity.append(_floats(some["quantity"]))
        sizes.append(_session_sizes(some)[0])
    return Bins(
        event_types=tuple(sorted(kinds)),
        price=quantile_edges(np.concatenate(price), bins=FEATURE_BINS),
        quantity=quantile_edges(np.concatenate(quantity), bins=FEATURE_BINS),
        session_events=quantile_edges(np.concatenate(sizes), bins=FEATURE_BINS),
        depth=depth_edges(lens),
    )


def tally_day(table: pa.Table, lens: Lens, bins: Bins) -> Tally:
    """Events of schema EVENTS, in any order -> counts. An empty day has counts too: all of them 0."""
    kind = positions(table["event_type"], pa.array(bins.event_types, pa.string()))
    item, user = positions(table["item_id"], lens.item_ids), positions(table["user_id"], lens.user_ids)
    known_item, known_user = item >= 0, user >= 0
    price, quantity = _floats(table["price"]), _floats(table["quantity"])
    strong = np.array([EVENT_WEIGHTS.get(name, UNLISTED_EVENT_WEIGHT) >= STRONG_WEIGHT for name in bins.event_types])
    is_strong = np.append(strong, False)[kind]
    sizes, session = _session_sizes(table)
    is_named = pc.is_valid(table["user_id"]).to_numpy()
    popularity = np.floor(lens.popularity_I[item] * POPULARITY_BINS).astype(np.int64) if lens.num_items else item
    category = lens.category_I[item]
    both = known_item & known_user
    has_price = known_item & np.isfinite(price) & (price > 0) & (lens.price_I[item] > 0)
    ratio = np.log(price[has_price] / lens.price_I[item[has_price]])
    sources, targets = _steps(item, session)
    return {
        "events": _count(table.num_rows),
        "sessions": _count(len(sizes)),
        "session_log_events": _count(np.log(sizes).sum()),
        "event_type": _histogram(np.where(kind < 0, len(bins.event_types), kind), len(bins.event_types) + 1),
        "named": _count(is_named.sum()),
        "named_sessions": _count(len(np.unique(session[is_named & (session >= 0)]))),
        "unknown_users": _count((is_named & ~known_user).sum()),
        "unknown_items": _count((~known_item).sum()),
        "hour": _histogram(_hours(table["timestamp"]), 24),
        "price": bin_counts(price, bins.price),
        "priced": _count(has_price.sum()),
        "log_price_ratio": _count(np.clip(ratio, -5, 5).sum()),
        "quantity": bin_counts(quantity[is_strong], bins.quantity),
        "session_events": bin_counts(sizes, bins.session_events),
        "category": _histogram(category[known_item], lens.num_categories),
        "popularity": _histogram(popularity[known_item], POPULARITY_BINS),
        "popularity_sum": _count(lens.popularity_I[item[known_item]].sum()),
        "known_items": _count(known_item.sum()),
        "history_depth": bin_counts(lens.depth_U[user[known_user]], bins.depth),
        "tasted": _count(both.sum()),
        "taste_sum": _count(lens.share_of_taste(user[both], category[both]).sum()),
        "repeats": _count(lens.has_seen(user[both], item[both]).sum()),
        "steps": _count(len(sources)),
        "steps_on_edges": _count(lens.has_edge(sources, targets).sum()),
    }


def add(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies over the same bins."""
    total: dict[str, Floats] = {}
    for tally in tallies:
        for name, counts in tally.items():
            total[name] = total[name] + counts if name in total else counts
    return total


def plain(tally: Tally) -> dict[str, list[float]]:
    return {name: [round(float(count), 6) for count in counts] for name, counts in tally.items()}


def from_plain(content: Mapping[str, Sequence[float]]) -> Tally:
    return {name: np.asarray(counts, np.float64) for name, counts in content.items()}


def days_between(first: date, end: date) -> list[date]:
    """Days from `first` on, without `end`."""
    return [first + timedelta(days=number) for number in range(max(0, (end - first).days))]


def _steps(item: Ints, session: Ints) -> tuple[Ints, Ints]:
    """Neighbouring distinct items of each session: positions of the one and of the next."""
    known = np.flatnonzero((item >= 0) & (session >= 0))
    by_session = known[np.argsort(session[known], kind="stable")]
    first, second = by_session[:-1], by_session[1:]
    together = (session[first] == session[second]) & (item[first] != item[second])
    return item[first[together]], item[second[together]]


def _session_sizes(table: pa.Table) -> tuple[Floats, Ints]:
    """(S,) events of each session, and (E,) the number of each event's session; -1 where it has none."""
    encoded = table["session_id"].combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    session: Ints = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    sizes = np.bincount(session[session >= 0]).astype(np.float64)
    return sizes[sizes > 0], session


def _hours(column: pa.ChunkedArray) -> Ints:
    hours: Ints = (column.cast(pa.int64()).to_numpy() // _HOUR_US) % 24
    return hours


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return values


def _histogram(codes: Ints, size: int) -> Floats:
    return np.bincount(codes, minlength=size).astype(np.float64)


def _count(value: Any) -> Floats:
    return np.array([float(value)])
