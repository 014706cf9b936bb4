"""What relations are built from: the events before a cutoff and the catalogue, with integer codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from components.core.schemas import EVENT_WEIGHTS, EVENTS, TARGET_EVENT_TYPES, TIMESTAMP, UNLISTED_EVENT_WEIGHT
from components.graph.prices import PaidPrices
from components.graph.session_pairs import SessionPairs

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ItemWorld:
    """Events before `cutoff`, one row an event with a positive weight; codes index `item_ids` and so on."""

    cutoff: datetime
    item_ids: Sequence[str]  # I, sorted: the order of every item matrix
    pairs: SessionPairs  # of the whole log; `counts` takes the cutoff
    item_E: Ints
    user_E: Ints  # -1: anonymous
    session_E: Ints  # -1: none
    age_days_E: Floats
    weight_E: Floats
    is_target_E: npt.NDArray[np.bool_]
    attributes: Mapping[str, Sequence[str | None]]  # name -> I values
    price_I: Floats  # the catalogue's; where it names none, the median paid before the cutoff; nan where unknown

    @property
    def cutoff_days(self) -> float:
        return self.cutoff.timestamp() / 86_400

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_users(self) -> int:
        return int(self.user_E.max(initial=-1)) + 1

    def decay(self, half_life_days: float) -> Floats:
        """(E,) weight of an event by its age: halves every `half_life_days`."""
        return np.exp2(-self.age_days_E / np.float32(half_life_days)).astype(np.float32)

    def user_strengths(self, *, half_life_days: float) -> sp.csr_matrix:
        """(U, I): how much an item counts in a user's history; what Histories.strengths gives, for everybody.

        A purchase counts 1 however often, decayed by the age of the last event with the item.
        """
        known = self.user_E >= 0
        shape = (self.num_users, self.num_items)
        key = self.user_E[known] * self.num_items + self.item_E[known]
        unique, inverse = np.unique(key, return_inverse=True)
        weight = np.bincount(inverse, weights=self.weight_E[known], minlength=len(unique))
        age = np.full(len(unique), np.inf, dtype=np.float32)
        np.minimum.at(age, inverse, self.age_days_E[known])
        strength = np.minimum(weight, 1.0) * np.exp2(-age / half_life_days)
        rows, cols = np.divmod(unique, self.num_items)
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
        actor = _actors(self.user_E, self.session_E)
        pairs = np.unique(actor[chosen] * self.num_items + self.item_E[chosen])
        return np.bincount(pairs % self.num_items, minlength=self.num_items)


def read_worlds(
    event_files: Sequence[Path], catalog: pa.Table, *, cutoffs: Sequence[datetime], min_distinct_users: int
) -> list[ItemWorld]:
    """One world a cutoff, all with the items that the catalogue or any event before the last cutoff names."""
    events = _events_before(event_files, cutoffs[-1])
    described = _describe_items(events, catalog)
    item_ids, listed_I = described["item_id"], described["price"]
    moment = np.asarray(events["timestamp"].cast(pa.int64()))
    paid = PaidPrices.of(
        item_E=_codes(events["item_id"], item_ids),
        price_E=np.asarray(pc.fill_null(events["price"], np.nan)),
        moment_E=moment,
        num_items=len(item_ids),
    )
    weight_of = {
        kind: EVENT_WEIGHTS.get(kind, UNLISTED_EVENT_WEIGHT) for kind in events["event_type"].unique().to_pylist()
    }
    kind_E = _codes(events["event_type"], sorted(weight_of))
    columns: dict[str, Any] = {
        "item_E": _codes(events["item_id"], item_ids),
        "user_E": _codes(events["user_id"], _sorted_values(events["user_id"])),
        "session_E": _codes(events["session_id"], _sorted_values(events["session_id"])),
        "weight_E": np.array([weight_of[kind] for kind in sorted(weight_of)], dtype=np.float32)[kind_E],
        "is_target_E": np.array([kind in TARGET_EVENT_TYPES for kind in sorted(weight_of)], dtype=bool)[kind_E],
    }
    counted = columns["weight_E"] > 0
    order = np.flatnonzero(counted)
    order = order[np.lexsort((columns["item_E"][order], columns["user_E"][order], moment[order]))]
    moment = moment[order]
    columns = {name: values[order] for name, values in columns.items()}
    chosen = columns["is_target_E"] & (columns["session_E"] >= 0)
    pairs = SessionPairs.expand(
        session_E=columns["session_E"][chosen],
        item_E=columns["item_E"][chosen],
        actor_E=_actors(columns["user_E"], columns["session_E"])[chosen],
        moment_E=moment[chosen] / 86_400e6,
        num_items=len(item_ids),
        min_distinct_users=min_distinct_users,
    )
    worlds = []
    for cutoff in cutoffs:
        cutoff_us = int(cutoff.timestamp() * 1_000_000)
        before = int(np.searchsorted(moment, cutoff_us, side="left"))
        age_days = ((cutoff_us - moment[:before]) / 86_400e6).astype(np.float32)
        worlds.append(
            ItemWorld(
                cutoff=cutoff,
                item_ids=item_ids,
                pairs=pairs,
                age_days_E=age_days,
                attributes=described["attributes"],
                price_I=np.where(np.isnan(listed_I), paid.medians(before_us=cutoff_us), listed_I),
                item_E=columns["item_E"][:before],
                user_E=columns["user_E"][:before],
                session_E=columns["session_E"][:before],
                weight_E=columns["weight_E"][:before],
                is_target_E=columns["is_target_E"][:before],
            )
        )
    return worlds


def _actors(user_E: Ints, session_E: Ints) -> Ints:
    """Who acted: the user, or for an anonymous session a code beyond the users'."""
    return np.where(user_E >= 0, user_E, int(user_E.max(initial=-1)) + 1 + session_E)


def _events_before(event_files: Sequence[Path], cutoff: datetime) -> pa.Table:
    names = ["item_id", "user_id", "session_id", "event_type", "timestamp", "price"]
    parts = [pq.read_table(path, columns=names) for path in event_files]
    events = pa.concat_tables(parts) if parts else EVENTS.empty_table().select(names)
    return events.filter(pc.less(events["timestamp"], pa.scalar(cutoff, TIMESTAMP)))


def _describe_items(events: pa.Table, catalog: pa.Table) -> dict[str, Any]:
    """Sorted item ids of log and catalogue, attributes (name -> I values) and listed prices (I,), nan where none."""
    item_ids = sorted(set(_sorted_values(events["item_id"])) | set(_sorted_values(catalog["item_id"])))
    place = _codes(catalog["item_id"], item_ids)
    attributes: dict[str, list[str | None]] = {}
    for name in ("category", "brand"):
        column: list[str | None] = [None] * len(item_ids)
        for row, value in zip(place, catalog[name].to_pylist(), strict=True):
            column[row] = value
        attributes[name] = column
    for row, pairs in zip(place, catalog["attributes"].to_pylist(), strict=True):
        for name, value in pairs or ():
            if name not in attributes:
                attributes[name] = [None] * len(item_ids)
            attributes[name][row] = value
    price_I = np.full(len(item_ids), np.nan, dtype=np.float32)
    price_I[place] = catalog["price"].to_numpy(zero_copy_only=False)
    return {"item_id": item_ids, "attributes": attributes, "price": price_I}


def _sorted_values(column: pa.ChunkedArray) -> list[str]:
    return sorted(value for value in column.unique().to_pylist() if value is not None)


def _codes(column: pa.ChunkedArray, values: Sequence[str]) -> Ints:
    """Position of each entry in `values`; -1 for null."""
    found = pc.index_in(column, value_set=pa.array(values, pa.string()))
    return np.asarray(pc.fill_null(found, -1), dtype=np.int64)
