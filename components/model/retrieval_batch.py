"""The lists of many users at once: those of components/model/retrieval.py, by arithmetic on dense blocks.

Few items are ever led to by a history: those that some filter row names. With the most popular items they are the
columns that a list is chosen from. One sparse product says how far every user's history leads to every column, and

    q_uc = (pull_uc + floor · rms_u) exp(static_c / w_filter)

orders a user's columns as filter and static do together, without a logarithm for each. The columns of the greatest q
are scored whole; the k-th best of them is a floor, which says how great a q has to be for affinities and similarity to
lift a column over it (the bound of retrieval.py). Such columns get their affinities attribute by attribute, those with
the greatest weight first, and are dropped as soon as what is left cannot lift them over the floor. What remains is
scored whole.

Legend of shape suffixes: I items by index, P items by place (retrieval_terms.py), W columns by place, B users of a
block, N entries of their histories, A attributes that count, V the values of all, D dimensions, C candidates,
ascending by user and column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from components.model.histories import Histories
from components.model.history_sums import Floats, HistorySums, Ints, Slots
from components.model.retrieval_terms import LOG_FLOOR, ROUNDING, Bools, TermTables
from components.model.terms import FILTER_FLOOR

List = tuple[list[int], list[float]]

_POPULAR = 256  # the first places are columns, whether led to or not
_BLOCK_BYTES = 2**23  # of one dense block: what is read again and again should stay in a cache
_SUMS_BYTES = 2**23  # of what is summed up by value in one go
_GROUPS = 256  # strided groups of columns, whose maxima say what a great q is
_LEADING = 4  # of as many columns the first one is looked at for a floor
_MOST_EXPONENT = 60.0  # of exp(static / w_filter), so that float32 holds every q
_LEAST_RMS = np.float32(1e-6)  # of pulls; below it q might leave what float32 holds
_LEAST = np.float32(1e-37)  # a q below this is of a column that may not be listed


class _Columns(NamedTuple):
    """Candidates: columns of users."""

    at_C: Ints  # in a block, user after user
    user_C: Ints
    column_C: Ints

    def take(self, kept: Ints) -> _Columns:
        return _Columns(*(part.take(kept) for part in self))


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Users, and what is known of their columns."""

    users_BD: Floats  # times w_similarity / τ
    lift_BV: Floats
    reach_BA: Floats
    """The most that affinities can add."""
    reach_similarity_B: Floats
    q_BW: Floats
    """0 where a column may not be listed."""
    rms_B: Floats
    """Of pulls; 1 where nothing is led to: by whatever it is divided."""
    same_B: npt.NDArray[np.float64]
    """w_filter · log q + same: what filter and static add to a score."""
    is_measurable_B: Bools

    @property
    def num_users(self) -> int:
        return len(self.users_BD)

    @property
    def reach_B(self) -> Floats:
        reach_B: Floats = self.reach_similarity_B + self.reach_BA.sum(axis=1)
        return reach_B


class BatchRetrieval:
    """Ranks many users for items new to them. Safe to share between threads."""

    def __init__(self, tables: TermTables) -> None:
        self._tables = tables
        rows = tables.scorer.counted.filter_rows
        place_E = tables.place_I[rows.indices.numpy()]
        is_column_P = np.zeros(tables.num_items, dtype=bool)
        is_column_P[place_E] = True
        is_column_P[:_POPULAR] = True
        self._places_W: Ints = np.flatnonzero(is_column_P)
        self._items_W: Ints = tables.order_P[self._places_W]
        static_W = tables.static_P[self._places_W]
        # -1: no column.
        column_P = np.where(is_column_P, np.cumsum(is_column_P) - 1, -1).astype(np.int32)
        self._column_I: Slots = column_P[tables.place_I]
        self._is_outside_P: Bools = ~is_column_P
        self._pulls = HistorySums(
            rows.indptr.numpy(), column_P[place_E], rows.values.numpy(), num_columns=self.num_columns
        )
        tastes = tables.tastes
        self._values = tastes.sums(tables.place_I)
        self._attributes: Ints = np.argsort(-tastes.weight_A, kind="stable")  # in the order in which they are looked up
        self._value_AW = [tastes.value_PA[self._places_W, attribute] for attribute in self._attributes]
        self._weight = float(tables.filter_weight)
        self._greatest = float(static_W.max(initial=0.0))
        spread = self._greatest - float(static_W.min(initial=0.0))
        self.is_able: bool = self._weight > 0 and spread <= _MOST_EXPONENT * self._weight
        """Whether q orders the columns; else every list is None."""
        if self.is_able:
            rise_W = np.exp((static_W.astype(np.float64) - self._greatest) / self._weight)
            self._rise_W: Floats = rise_W.astype(np.float32)

    @property
    def num_columns(self) -> int:
        return len(self._places_W)

    def lists(
        self,
        histories: Histories,
        vectors: Floats,
        *,
        k: int,
        allowed: Bools | None = None,
        run_limit: int | None = None,
    ) -> Iterator[List | None]:
        """For each user the k best new items and their scores, best first, equal ones by index. None where the bound
        does not hold among the columns, or fewer than k are left: then `Retrieval.rank_known` has to look further.

        Args:
            vectors: of the users, unit ones, a row each.
            allowed: (I,) whether an item may be listed; None: all.
            run_limit: as of `Retrieval`.
        """
        if not self.is_able:
            yield from [None] * len(histories)
            return
        outside = self._best_outside(allowed, run_limit)
        for block in self.blocks(histories, vectors, allowed):
            yield from self._ranked(block, outside, k, is_filtered=allowed is not None)

    def _best_outside(self, allowed: Bools | None, run_limit: int | None) -> float:
        """The most that anybody gets whose place is no column, or beyond the limit of a single user's run."""
        is_outside_P = self._is_outside_P if allowed is None else self._is_outside_P & allowed[self._tables.order_P]
        place = int(is_outside_P.argmax()) if is_outside_P.any() else len(is_outside_P)
        place = place if run_limit is None else min(place, run_limit)
        return float(self._tables.static_P[place]) if place < len(is_outside_P) else -math.inf

    def blocks(self, histories: Histories, vectors: Floats, allowed: Bools | None = None) -> Iterator[_Block]:
        """One after the other in the same memory."""
        tables, num_columns, num_values = self._tables, self.num_columns, self._values.num_columns
        starts_B, items_N = histories.indptr.numpy(), histories.items.numpy()
        strengths_N = histories.strengths(half_life_days=tables.scorer.counted.half_life_days).numpy()
        user_N = np.repeat(np.arange(len(histories)), np.diff(starts_B))
        total_B = np.bincount(user_N, weights=strengths_N, minlength=len(histories)).astype(np.float64)
        pulls, values = (sums.weighted(starts_B, items_N, strengths_N) for sums in (self._pulls, self._values))
        rise_W = self._rise_W if allowed is None else self._rise_W * allowed[self._items_W]
        own_N = self._column_I.take(items_N)
        at_O = np.flatnonzero(own_N >= 0)
        own_O = user_N.take(at_O) * num_columns + own_N.take(at_O)
        of_one = max(_BLOCK_BYTES // (4 * num_columns), 1)  # users
        room = np.empty((min(of_one, len(histories)), num_columns), np.float32)
        summed = max(_SUMS_BYTES // max(4 * num_values, 1) // of_one, 1) * of_one
        over_BV = np.empty((min(summed, len(histories)), num_values), np.float32)
        for first in range(0, len(histories), of_one):
            if first % summed == 0:
                self._values.of(values, first, out=over_BV[: len(histories) - first])
            end = min(first + of_one, len(histories))
            q_BW = room[: end - first]
            self._pulls.of(pulls, first, out=q_BW)
            rms_B: Floats = np.sqrt(np.vecdot(q_BW, q_BW) / np.float32(tables.num_items))
            is_measurable_B = (rms_B == 0) | (rms_B > _LEAST_RMS)
            rms_B[rms_B == 0] = 1
            q_BW += (np.float32(FILTER_FLOOR) * rms_B)[:, None]
            q_BW *= rise_W
            own = slice(*np.searchsorted(own_O, [first * num_columns, end * num_columns]).tolist())
            q_BW.reshape(-1)[own_O[own] - first * num_columns] = 0
            lift_BV = tables.tastes.lifts(over_BV[first % summed :][: end - first], total_B[first:end])
            users_BD = vectors[first:end] * np.float32(tables.similarity_weight)
            yield _Block(
                users_BD=users_BD,
                lift_BV=lift_BV,
                reach_BA=tables.tastes.reach(lift_BV),
                reach_similarity_B=np.linalg.norm(users_BD, axis=1) * np.float32(tables.longest_target),
                q_BW=q_BW,
                rms_B=rms_B,
                same_B=self._greatest - self._weight * (np.log(rms_B.astype(np.float64)) + LOG_FLOOR),
                is_measurable_B=is_measurable_B,
            )

    def _ranked(self, block: _Block, outside: float, k: int, *, is_filtered: bool) -> Iterator[List | None]:
        # Any k columns give a floor. The best of the popular ones give nearly the highest, for less than all.
        leading = self.num_columns if is_filtered else max(self.num_columns // _LEADING, 12 * k)
        leaders = _where(block.q_BW, _kth_of_groups(block.q_BW[:, :leading], 3 * k), num_columns=leading)
        floor_B = _kth(leaders.user_C, self._scores(block, leaders), block.num_users, k)
        found = self._above(block, floor_B)
        total_C = self._scores(block, found)
        kept = np.flatnonzero(total_C >= floor_B.take(found.user_C))
        user_C, total_C = found.user_C.take(kept), total_C.take(kept)
        items_C = self._items_W.take(found.column_C.take(kept))
        order = np.lexsort((items_C, -total_C, user_C))
        items_C, total_C = items_C.take(order), total_C.take(order)
        ends_B = np.searchsorted(user_C, np.arange(block.num_users + 1))
        first_B, has_k_B = ends_B[:-1], np.diff(ends_B) >= k
        kth_B = np.full(block.num_users, -np.inf, np.float32)
        kth_B[has_k_B] = total_C[first_B[has_k_B] + k - 1]
        is_whole_B = block.is_measurable_B & has_k_B & (np.float32(outside) < _lowered(kth_B, block.reach_B))
        items, scores = items_C.tolist(), total_C.tolist()
        for first, is_whole in zip(first_B.tolist(), is_whole_B.tolist(), strict=True):
            yield (items[first : first + k], scores[first : first + k]) if is_whole else None

    def _above(self, block: _Block, floor_B: Floats) -> _Columns:
        """All columns that are not below the floor, and some that similarity alone keeps from being above it."""
        found = _where(block.q_BW, self._q_of(_lowered(floor_B, block.reach_B)) * block.rms_B)
        needed_B = (_lowered(floor_B, block.reach_B) - block.same_B).astype(np.float32)
        total_C = np.log(block.q_BW.take(found.at_C))
        total_C *= np.float32(self._weight)
        drops_many = True
        for attribute, value_W in zip(self._attributes, self._value_AW, strict=True):
            total_C += _of_values(block, found, value_W)
            needed_B += block.reach_BA[:, attribute]
            if drops_many or attribute == self._attributes[-1]:
                kept = np.flatnonzero(total_C >= needed_B.take(found.user_C))
                drops_many = 2 * len(kept) < len(total_C)
                found, total_C = found.take(kept), total_C.take(kept)
        return found

    def _q_of(self, needed_B: Floats) -> Floats:
        """The q, over the rms, of a column of which filter and static say so much."""
        exponent_B = (needed_B.astype(np.float64) - self._greatest) / self._weight + LOG_FLOOR
        return np.exp(exponent_B.clip(max=_MOST_EXPONENT)).astype(np.float32)

    def _scores(self, block: _Block, columns: _Columns) -> Floats:
        """(C,) the whole score."""
        log_C = np.log(block.q_BW.take(columns.at_C), dtype=np.float64)
        total_C = (self._weight * log_C + block.same_B.take(columns.user_C)).astype(np.float32)
        for value_W in self._value_AW:
            total_C += _of_values(block, columns, value_W)
        target_CD = self._tables.target_ID.take(self._items_W.take(columns.column_C), axis=0)
        total_C += np.vecdot(target_CD, block.users_BD.take(columns.user_C, axis=0))
        return total_C


def _where(q_BW: Floats, least_B: Floats, *, num_columns: int | None = None) -> _Columns:
    """Where q is not below `least_B`, among the first `num_columns`; None: all."""
    leading_BW = q_BW[:, :num_columns]
    num_users, width = leading_BW.shape
    at_C = np.flatnonzero(leading_BW >= np.maximum(least_B, _LEAST)[:, None])
    first_B = np.arange(num_users) * width
    user_C = np.repeat(np.arange(num_users), np.diff(np.searchsorted(at_C, first_B), append=len(at_C)))
    return _Columns(at_C + user_C * (q_BW.shape[1] - width), user_C, at_C - first_B.take(user_C))


def _of_values(block: _Block, columns: _Columns, value_W: Ints) -> Floats:
    """(C,) affinity by one attribute."""
    at_C = value_W.take(columns.column_C)
    at_C += columns.user_C * block.lift_BV.shape[1]
    found: Floats = block.lift_BV.take(at_C)
    return found


def _lowered(floor_B: Floats, by_B: Floats) -> Floats:
    """What an item needs without a part that adds `by_B` at most."""
    return (floor_B - by_B - ROUNDING * np.maximum(1.0, np.abs(floor_B))).astype(np.float32)


def _kth_of_groups(q_BW: Floats, k: int) -> Floats:
    """(B,) what at least k columns of a user reach (where there are as many), and not many more."""
    num_users, num_columns = q_BW.shape
    num_groups = min(max(_GROUPS, 4 * k), num_columns)
    k, size = min(k, num_groups), num_columns // num_groups
    groups_BSG = q_BW[:, : size * num_groups].reshape(num_users, size, num_groups)
    least_B: Floats = np.partition(groups_BSG.max(axis=1), num_groups - k, axis=1)[:, num_groups - k]
    return least_B


def _kth(user_C: Ints, values_C: Floats, num_users: int, k: int) -> Floats:
    """(B,) the k-th greatest value of each user; -inf where there are fewer."""
    counts_B = np.bincount(user_C, minlength=num_users)
    width = max(int(counts_B.max(initial=0)), k)
    values_BC = np.full((num_users, width), -np.inf, np.float32)
    values_BC[user_C, np.arange(len(user_C)) - (np.cumsum(counts_B) - counts_B)[user_C]] = values_C
    kth_B: Floats = np.partition(values_BC, width - k, axis=1)[:, width - k]
    return kth_B
