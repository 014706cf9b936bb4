"""What relations are built from: the events before a cutoff and the catalogue, with integer codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch

from components.core.schemas import EVENT_WEIGHTS, EVENTS, TARGET_EVENT_TYPES, TIMESTAMP, UNLISTED_EVENT_WEIGHT
from components.core.store import Store
from components.graph.catalogue import Catalogue
from components.graph.day_pairs import LogDay, all_pairs
from components.graph.prices import PaidPrices
from components.graph.session_pairs import VIEWED_THEN_BOUGHT, SessionEvents, SessionPairs
from components.graph.side_tables import NO_RULES, NO_TRIPLES
from components.model.linear_filter import strongest_entries

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Somebody looked at the item.
VIEW_EVENT_TYPES: tuple[str, ...] = ("view", "click")


@dataclass(frozen=True, kw_only=True)
class ItemWorld:
    """Events before `cutoff`, one row an event with a positive weight; codes index `item_ids` and so on."""

    cutoff: datetime
    catalogue: Catalogue  # of the I items, whatever the moment
    pairs: Mapping[str, SessionPairs]  # by kind, of the whole log; `counts` takes the cutoff
    user_ids: Sequence[str]  # sorted; some come after the cutoff and have no event here
    item_E: Ints
    user_E: Ints  # -1: anonymous
    session_E: Ints  # -1: none
    age_days_E: Floats
    weight_E: Floats
    is_target_E: npt.NDArray[np.bool_]
    is_view_E: npt.NDArray[np.bool_]
    price_I: Floats  # the catalogue's; where it names none, the median paid before the cutoff; nan where unknown
    _strengths: dict[tuple[float, int | None], sp.csr_matrix] = field(default_factory=dict)

    @property
    def cutoff_days(self) -> float:
        return self.cutoff.timestamp() / 86_400

    @property
    def item_ids(self) -> Sequence[str]:
        """I, sorted: the order of every item matrix."""
        return self.catalogue.item_ids

    @property
    def num_items(self) -> int:
        return len(self.catalogue)

    @property
    def num_users(self) -> int:
        return int(self.user_E.max(initial=-1)) + 1

    def decay(self, half_life_days: float) -> Floats:
        """(E,) weight of an event by its age: halves every `half_life_days`."""
        return np.exp2(-self.age_days_E / np.float32(half_life_days)).astype(np.float32)

    def user_strengths(self, *, half_life_days: float, strongest: int | None = None) -> sp.csr_matrix:
        """(U, I): how much an item counts in a user's history; what Histories.strengths gives, for everybody.

        A purchase counts 1 however often, decayed by the age of the last event with the item. With `strongest`, that
        many items a user, equals by item.
        """
        # Asked for by a relation and by the filter.
        if (half_life_days, strongest) not in self._strengths:
            found = self._user_strengths(half_life_days)
            found = found if strongest is None else strongest_entries(found, count=strongest)
            self._strengths[half_life_days, strongest] = found
        return self._strengths[half_life_days, strongest]

    def _user_strengths(self, half_life_days: float) -> sp.csr_matrix:
        known = np.flatnonzero(self.user_E >= 0)
        key = torch.from_numpy(self.user_E[known] * self.num_items + self.item_E[known])
        ordered, order = (part.numpy() for part in torch.sort(key, stable=True))
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], len(ordered) > 0))
        starts = np.concatenate([[0], last[:-1] + 1])[: len(last)]
        weight = np.add.reduceat(self.weight_E[known][order], starts) if len(starts) else np.zeros(0)
        age = self.age_days_E[known[order[last]]]  # events are in time: the last is the youngest
        strength = np.minimum(weight, 1.0) * np.exp2(-age / half_life_days)
        rows, cols = np.divmod(ordered[last], self.num_items)
        shape = (self.num_users, self.num_items)
        return sp.csr_matrix((strength.astype(np.float32), (rows, cols)), shape=shape)

    @cached_property
    def users_I(self) -> Ints:
        """(I,) users with a target event on the item, ever."""
        return self._distinct_users(self.is_target_E)

    def recent_users(self, *, within_days: float) -> Ints:
        """(I,) users with a target event on the item in the last days before the cutoff."""
        return self._distinct_users(self.is_target_E & (self.age_days_E <= within_days))

    def _distinct_users(self, chosen: npt.NDArray[np.bool_]) -> Ints:
        # Anonymous sessions count as users.
        actor = _actors(self.user_E[chosen], self.session_E[chosen], num_users=self.num_users)
        ordered = torch.sort(torch.from_numpy(actor * self.num_items + self.item_E[chosen])).values.numpy()
        first = ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered
        return np.bincount(first % self.num_items, minlength=self.num_items)


@dataclass(frozen=True)
class Worlds:
    """The worlds of all cutoffs, oldest first."""

    by_cutoff: Sequence[ItemWorld]
    days: Sequence[date]  # days with events before the last cutoff
    expanded_days: Sequence[date]  # of them, those whose session pairs were not kept


def read_worlds(
    days: Sequence[tuple[date, Path, str]],
    catalog: pa.Table,
    *,
    cutoffs: Sequence[datetime],
    min_distinct_users: int,
    triples: pa.Table = NO_TRIPLES,
    rules: pa.Table = NO_RULES,
    store: Store | None = None,
) -> Worlds:
    """One world a cutoff, all with the items that the catalogue or any event before the last cutoff names.

    Args:
        days: day, file and the file's hash, in order.
        store: where session pairs are kept a day, and which texts are alike; without one all is counted here.
    """
    days = [entry for entry in days if entry[0] <= (cutoffs[-1] - timedelta(microseconds=1)).date()]
    events = _events_before([path for _, path, _ in days], cutoffs[-1])
    logged_ids, logged_E = _coded(events["item_id"])
    item_ids = sorted({*logged_ids, *catalog["item_id"].to_pylist()})
    catalogue = Catalogue.of(item_ids, catalog, triples=triples, rules=rules, store=store)
    moment = np.asarray(events["timestamp"].cast(pa.int64()))
    item_E = np.searchsorted(np.array(item_ids, dtype=object), np.array(logged_ids, dtype=object))[logged_E]
    price_E = np.asarray(pc.fill_null(events["price"], np.nan))
    paid = PaidPrices.of(item_E=item_E, price_E=price_E, moment_E=moment, num_items=len(item_ids))
    kinds, kind_E = _coded(events["event_type"])
    user_ids, user_E = _coded(events["user_id"])
    columns: dict[str, Any] = {
        "item_E": item_E,
        "user_E": user_E,
        "session_E": _coded(events["session_id"])[1],
        "weight_E": np.array([EVENT_WEIGHTS.get(kind, UNLISTED_EVENT_WEIGHT) for kind in kinds], np.float32)[kind_E],
        "is_target_E": np.array([kind in TARGET_EVENT_TYPES for kind in kinds], dtype=bool)[kind_E],
        "is_view_E": np.array([kind in VIEW_EVENT_TYPES for kind in kinds], dtype=bool)[kind_E],
    }
    order = np.flatnonzero(columns["weight_E"] > 0)
    order = order[_by_time(moment[order], columns["user_E"][order], columns["item_E"][order])]
    moment, day_E = moment[order], np.asarray(events["day"])[order]
    columns = {name: values[order] for name, values in columns.items()}
    assert not len(day_E) or np.diff(day_E).min(initial=0) >= 0, "a day's file holds that day's events alone"
    sessions = SessionEvents(
        item_E=columns["item_E"],
        session_E=columns["session_E"],
        actor_E=_actors(columns["user_E"], columns["session_E"], num_users=len(user_ids)),
        moment_E=moment,
        day_E=day_E,
        is_target_E=columns["is_target_E"],
        is_view_E=columns["is_view_E"],
    )
    rows_D = np.bincount(day_E, minlength=len(days))
    log_days = [
        LogDay(day=day, sha256=sha256, rows=int(rows)) for (day, _, sha256), rows in zip(days, rows_D, strict=True)
    ]
    of_days = all_pairs(sessions, log_days, num_items=len(item_ids), store=store)
    pairs = {
        kind: SessionPairs.of(
            found,
            sessions,
            is_directed=kind == VIEWED_THEN_BOUGHT,
            num_items=len(item_ids),
            min_distinct_users=min_distinct_users,
        )
        for kind, found in of_days.pairs.items()
    }
    worlds = []
    for cutoff in cutoffs:
        cutoff_us = int(cutoff.timestamp() * 1_000_000)
        before = int(np.searchsorted(moment, cutoff_us, side="left"))
        listed_I = catalogue.listed_price_I
        worlds.append(
            ItemWorld(
                cutoff=cutoff,
                catalogue=catalogue,
                pairs=pairs,
                user_ids=user_ids,
                age_days_E=((cutoff_us - moment[:before]) / 86_400e6).astype(np.float32),
                price_I=np.where(np.isnan(listed_I), paid.medians(before_us=cutoff_us), listed_I),
                **{name: values[:before] for name, values in columns.items()},
            )
        )
    return Worlds(worlds, [one.day for one in log_days], of_days.expanded)


def _actors(user_E: Ints, session_E: Ints, *, num_users: int) -> Ints:
    """Who acted: the user, or for an anonymous session a code beyond the users'."""
    return np.where(user_E >= 0, user_E, num_users + 1 + session_E)


def _by_time(moment_E: Ints, user_E: Ints, item_E: Ints) -> Ints:
    """Order of events by moment, user and item."""
    num_items = int(item_E.max(initial=0)) + 1
    # Two integers an event sort faster than three columns.
    by_person = torch.argsort(torch.from_numpy((user_E + 1) * num_items + item_E), stable=True)
    by_time = torch.argsort(torch.from_numpy(moment_E)[by_person], stable=True)
    order: Ints = by_person[by_time].numpy()
    return order


def _events_before(event_files: Sequence[Path], cutoff: datetime) -> pa.Table:
    """The files' events before the cutoff, texts as dictionaries, with `day`: the place of their file."""
    texts, numbers = ["item_id", "user_id", "session_id", "event_type"], ["timestamp", "price"]
    text_type = pa.dictionary(pa.int32(), pa.string())
    columns = {name: text_type if name in texts else EVENTS.field(name).type for name in [*texts, *numbers]}
    parts = [pa.schema([*columns.items(), ("day", pa.int64())]).empty_table()]
    for n, path in enumerate(event_files):
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            part = file.read(columns=list(columns))
        if n == len(event_files) - 1:  # the day that the cutoff is in
            part = part.filter(pc.less(part["timestamp"], pa.scalar(cutoff, TIMESTAMP)))
        day = pa.repeat(pa.scalar(n, pa.int64()), len(part))
        parts.append(pa.table({**{name: part[name] for name in columns}, "day": day}))
    return pa.concat_tables(parts).unify_dictionaries()


def _coded(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Dictionary column -> its sorted distinct values, and each entry's place among them, -1 for null."""
    whole = column.combine_chunks()
    entry = np.asarray(pc.fill_null(whole.indices, -1), dtype=np.int64)
    values = whole.dictionary.to_pylist()
    is_used = np.zeros(len(values), dtype=bool)
    is_used[entry[entry >= 0]] = True
    used = sorted(np.flatnonzero(is_used).tolist(), key=values.__getitem__)
    place = np.full(len(values) + 1, -1, dtype=np.int64)  # the last, for null
    place[used] = np.arange(len(used))
    return [values[code] for code in used], place[entry]
