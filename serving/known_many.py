"""What is known of many users at once: `know` of known.py, with stored histories that need no joining read as one.

Legend of shape suffixes: B users, N entries of their histories, F statistics; P users whose histories need no joining.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.model.histories import Histories
from feature_repo.stored_users import SCALAR_STATISTICS
from feature_repo.stored_values import record_offsets
from serving.fresh import FreshEvent
from serving.item_rows import Ints, ItemRows
from serving.known import Facts, histories_of, know, statistics_of
from serving.online import Floats, OnlineUser, OnlineUsers

ITEMS_AN_ENTRY = 8  # a table of all items is worth making for one entry of a history for so many items

Bools = npt.NDArray[np.bool_]


class KnownUsers(NamedTuple):
    """What the model is asked with, and what answers say of each user."""

    histories: Histories
    statistics_BF: Tensor
    facts: list[Facts]


class _Plain(NamedTuple):
    """Users whose stored history is their history."""

    places_P: Ints
    lengths_P: Ints
    items_N: Ints
    weights_N: Floats
    ages_N: Floats
    statistics_PF: npt.NDArray[np.float64]  # by SCALAR_STATISTICS
    age_seconds_P: npt.NDArray[np.float64]

    def only(self, kept_P: Bools) -> _Plain:
        if kept_P.all():
            return self
        kept_N = np.repeat(kept_P, self.lengths_P)
        return _Plain(
            places_P=self.places_P[kept_P],
            lengths_P=self.lengths_P[kept_P],
            items_N=self.items_N[kept_N],
            weights_N=self.weights_N[kept_N],
            ages_N=self.ages_N[kept_N],
            statistics_PF=self.statistics_PF[kept_P],
            age_seconds_P=self.age_seconds_P[kept_P],
        )


_NOBODY = _Plain(
    places_P=np.zeros(0, np.int64),
    lengths_P=np.zeros(0, np.int64),
    items_N=np.zeros(0, np.int64),
    weights_N=np.zeros(0, np.float32),
    ages_N=np.zeros(0, np.float32),
    statistics_PF=np.zeros((0, len(SCALAR_STATISTICS))),
    age_seconds_P=np.zeros(0),
)


def know_many(
    users: Sequence[OnlineUser | None],
    fresh: Sequence[Sequence[FreshEvent]],
    *,
    rows: ItemRows,
    now: datetime,
    max_history: int,
    statistics: Sequence[str],
) -> KnownUsers:
    """`statistics`: names, of the columns of `KnownUsers.statistics_BF`."""
    plain = _plain(users, fresh, rows, max_history) if isinstance(users, OnlineUsers) else _NOBODY
    alone = {
        place: know((), users[place], fresh[place], rows=rows, now=now, max_history=max_history)
        for place in sorted(set(range(len(users))).difference(plain.places_P.tolist()))
    }
    is_plain_B = np.ones(len(users), dtype=bool)
    is_plain_B[list(alone)] = False
    lengths_B = np.zeros(len(users), np.int64)
    lengths_B[plain.places_P] = plain.lengths_P
    lengths_B[list(alone)] = [len(one.items) for one in alone.values()]
    statistics_BF = np.full((len(users), len(statistics)), np.nan, np.float32)
    for column, name in enumerate(statistics):
        if name in SCALAR_STATISTICS:
            statistics_BF[plain.places_P, column] = plain.statistics_PF[:, SCALAR_STATISTICS.index(name)]
    facts_of = {place: one.facts for place, one in alone.items()}
    for place, age_seconds in zip(plain.places_P.tolist(), plain.age_seconds_P.tolist(), strict=True):
        facts_of[place] = Facts("online_store", age_seconds, 0, ())
    items_N, weights_N, ages_N = plain.items_N, plain.weights_N, plain.ages_N
    if alone:
        statistics_BF[~is_plain_B] = statistics_of(list(alone.values()), statistics).numpy()
        is_plain_N, others = np.repeat(is_plain_B, lengths_B), histories_of(list(alone.values()))
        items_N = _merged(items_N, others.items, is_plain_N)
        weights_N = _merged(weights_N, others.weights, is_plain_N)
        ages_N = _merged(ages_N, others.ages_days, is_plain_N)
    return KnownUsers(
        histories=Histories(
            indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths_B)])),
            items=torch.from_numpy(items_N),
            weights=torch.from_numpy(weights_N),
            ages_days=torch.from_numpy(ages_N),
        ),
        statistics_BF=torch.from_numpy(statistics_BF),
        facts=[facts_of[place] for place in range(len(users))],
    )


def _plain(users: OnlineUsers, fresh: Sequence[Sequence[FreshEvent]], rows: ItemRows, max_history: int) -> _Plain:
    """Those of whom `know` would take the stored history as it is."""
    columns = users.columns
    lengths_P = np.diff(columns.starts_P)
    if lengths_P.sum() * ITEMS_AN_ENTRY < len(rows.index):
        return _NOBODY
    offsets = record_offsets(columns.records)
    if offsets is None:
        return _NOBODY
    counts_P = np.diff(np.searchsorted(offsets, columns.bytes_P))  # of records
    has_fresh_B = np.fromiter(map(bool, fresh), dtype=bool, count=len(fresh))
    wanted_P = (counts_P == lengths_P) & (lengths_P > 0) & (lengths_P <= max_history)
    wanted_P &= ~has_fresh_B[columns.places_P]
    if not wanted_P.any():
        return _NOBODY
    items_R = rows.of_records(columns.records, offsets)
    wanted_R, wanted_N = np.repeat(wanted_P, counts_P), np.repeat(wanted_P, lengths_P)
    plain = _Plain(
        places_P=columns.places_P[wanted_P],
        lengths_P=lengths_P[wanted_P],
        items_N=items_R[wanted_R],
        weights_N=columns.weights_N[wanted_N],
        ages_N=columns.ages_N[wanted_N],
        statistics_PF=columns.statistics_PF[wanted_P],
        age_seconds_P=columns.age_seconds_P[wanted_P],
    )
    starts_P = np.cumsum(plain.lengths_P) - plain.lengths_P
    user_N = np.repeat(np.arange(len(plain.lengths_P)), plain.lengths_P)
    is_odd_N = plain.items_N < 0
    is_odd_N[1:] |= (plain.ages_N[1:] < plain.ages_N[:-1]) & (user_N[1:] == user_N[:-1])
    is_odd_N[starts_P] |= plain.ages_N[starts_P] < 0
    key_N = np.sort(user_N * len(rows.index) + plain.items_N)
    is_odd_N[1:] |= key_N[1:] == key_N[:-1]  # in whatever place of the user's: the order of users is kept
    return plain.only(~np.logical_or.reduceat(is_odd_N, starts_P))


def _merged(plain_N: npt.NDArray[Any], others: Tensor, is_plain_N: Bools) -> npt.NDArray[Any]:
    found_N = np.empty(len(is_plain_N), plain_N.dtype)
    found_N[is_plain_N] = plain_N
    found_N[~is_plain_N] = others.numpy()
    return found_N
