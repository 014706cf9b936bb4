"""The lists of many users at once: those of components/model/retrieval.py, by arithmetic on dense blocks.

Few items are ever led to by a history: those that some filter row names. With the most popular items they are the
columns that a list is chosen from. One sparse product says how far every user's history leads to every column, and

    q_uc = (pull_uc + floor · rms_u) exp(static_c / w_filter)

orders a user's columns as filter and static do together, without a logarithm for each. The columns of the greatest q
are scored whole; the k-th best of them is a floor, which says how great a q has to be for affinities and similarity to
lift a column over it (the bound of retrieval.py). Only such columns have their affinities looked up, and only those
that then still can pass the floor their similarity.

Legend of shape suffixes: I items by index, P items by place (retrieval_terms.py), W columns by place, B users of a
block, N entries of their histories, V values of an attribute, D dimensions, C candidates, ascending by user.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from components.model.histories import Histories
from components.model.retrieval_terms import LOG_FLOOR, ROUNDING, Bools, TermTables
from components.model.tastes import Floats, Ints, Slots
from components.model.terms import FILTER_FLOOR

List = tuple[Ints, Floats]

_POPULAR = 256  # the first places are columns, whether led to or not
_BLOCK_BYTES = 2**22  # of one dense block
_GROUPS = 256  # strided groups of columns, whose maxima say what a great q is
_MOST_EXPONENT = 60.0  # of exp(static / w_filter), so that float32 holds every q
_LEAST_RMS = np.float32(1e-6)  # of pulls; below it q might leave what float32 holds
_LEAST = np.float32(1e-37)  # a q below this is of a column that may not be listed


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What is known of the users of a block before any column is looked at."""

    starts_B: Ints  # (B + 1,)
    items_N: Ints
    strengths_N: Floats
    user_N: Ints
    users_BD: Floats  # times w_similarity / τ
    lift_BV: Floats
    reach_similarity_B: Floats
    reach_affinities_B: Floats


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
        self._static_W: Floats = tables.static_P[self._places_W]
        # -1: no column.
        column_P = np.where(is_column_P, np.cumsum(is_column_P) - 1, -1).astype(np.int32)
        self._column_I: Slots = column_P[tables.place_I]
        self._is_outside_P: Bools = ~is_column_P
        self._pulls = _Pulls(rows.indptr.numpy(), column_P[place_E], rows.values.numpy(), num_columns=self.num_columns)
        self._value_AW = [value_P[self._places_W].astype(np.int32) for value_P in tables.tastes.value_PA.T]
        self._weight = float(tables.filter_weight)
        self._greatest = float(self._static_W.max(initial=0.0))
        spread = self._greatest - float(self._static_W.min(initial=0.0))
        self.is_able: bool = self._weight > 0 and spread <= _MOST_EXPONENT * self._weight
        """Whether q orders the columns; else every list is None."""
        if self.is_able:
            self._rise_W: Floats = np.exp((self._static_W - np.float32(self._greatest)) / np.float32(self._weight))

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
        rise_W = self._rise_W if allowed is None else self._rise_W * allowed[self._items_W]
        outside = self._best_outside(allowed, run_limit)
        strengths = histories.strengths(half_life_days=self._tables.scorer.counted.half_life_days).numpy()
        starts, items = histories.indptr.numpy(), histories.items.numpy()
        num_users = max(_BLOCK_BYTES // (4 * self.num_columns), 1)
        room = _Room.of(min(num_users, len(histories)), self.num_columns)
        for first in range(0, len(histories), num_users):
            starts_B = starts[first : first + num_users + 1]
            entries = slice(int(starts_B[0]), int(starts_B[-1]))
            users_BD = vectors[first : first + num_users] * np.float32(self._tables.similarity_weight)
            block = self._block(starts_B - starts_B[0], items[entries], strengths[entries], users_BD)
            yield from self._ranked(block, room, rise_W, outside, k)

    def _best_outside(self, allowed: Bools | None, run_limit: int | None) -> float:
        """The most that anybody gets whose place is no column, or beyond the limit of a single user's run."""
        is_outside_P = self._is_outside_P if allowed is None else self._is_outside_P & allowed[self._tables.order_P]
        place = int(is_outside_P.argmax()) if is_outside_P.any() else len(is_outside_P)
        place = place if run_limit is None else min(place, run_limit)
        return float(self._tables.static_P[place]) if place < len(is_outside_P) else -math.inf

    def _block(self, starts_B: Ints, items_N: Ints, strengths_N: Floats, users_BD: Floats) -> _Block:
        user_N = np.repeat(np.arange(len(users_BD)), np.diff(starts_B))
        lift_BV = self._tables.tastes.of_users(
            self._tables.place_I[items_N], strengths_N, user_N, num_users=len(users_BD)
        )
        return _Block(
            starts_B=starts_B,
            items_N=items_N,
            strengths_N=strengths_N,
            user_N=user_N,
            users_BD=users_BD,
            lift_BV=lift_BV,
            reach_similarity_B=np.linalg.norm(users_BD, axis=1) * np.float32(self._tables.longest_target),
            reach_affinities_B=self._tables.tastes.reach(lift_BV),
        )

    def _ranked(self, block: _Block, room: _Room, rise_W: Floats, outside: float, k: int) -> Iterator[List | None]:
        num_users = len(block.users_BD)
        pull_BW, q_BW = room.pull[:num_users], room.q[:num_users]
        self._pulls.of(block.starts_B, block.items_N, block.strengths_N, out=pull_BW)
        rms_B = np.sqrt(np.vecdot(pull_BW, pull_BW) / np.float32(self._tables.num_items))
        is_measurable_B = (rms_B == 0) | (rms_B > _LEAST_RMS)
        rms_B[rms_B == 0] = 1  # nothing is led to: by whatever it is divided
        np.add(pull_BW, (np.float32(FILTER_FLOOR) * rms_B)[:, None], out=q_BW)
        q_BW *= rise_W
        own_N = self._column_I[block.items_N]
        q_BW[block.user_N[own_N >= 0], own_N[own_N >= 0]] = 0
        user_C, column_C = room.where(q_BW, _kth_of_groups(q_BW, 2 * k))
        total_C = self._partial(block, pull_BW, rms_B, user_C, column_C) + self._similarity(block, user_C, column_C)
        floor_B = _kth(user_C, total_C, num_users, k)
        reach_B = block.reach_similarity_B + block.reach_affinities_B
        user_C, column_C = room.where(q_BW, self._q_of(_lowered(floor_B, reach_B)) * rms_B)
        total_C = self._partial(block, pull_BW, rms_B, user_C, column_C)
        stays_C = total_C >= _lowered(floor_B, block.reach_similarity_B)[user_C]
        user_C, column_C, total_C = user_C[stays_C], column_C[stays_C], total_C[stays_C]
        total_C += self._similarity(block, user_C, column_C)
        is_whole_B = is_measurable_B & (floor_B > -np.inf) & (np.float32(outside) < _lowered(floor_B, reach_B))
        items_C = self._items_W[column_C]
        order = np.lexsort((items_C, -total_C, user_C))
        items_C, total_C = items_C[order], total_C[order]
        first_B = np.searchsorted(user_C, np.arange(num_users))
        for first, is_whole in zip(first_B.tolist(), is_whole_B.tolist(), strict=True):
            yield (items_C[first : first + k], total_C[first : first + k]) if is_whole else None

    def _q_of(self, needed_B: Floats) -> Floats:
        """The q, over the rms, of a column of which filter and static say so much."""
        exponent_B = (needed_B.astype(np.float64) - self._greatest) / self._weight + LOG_FLOOR
        return np.exp(exponent_B.clip(max=_MOST_EXPONENT)).astype(np.float32)

    def _partial(self, block: _Block, pull_BW: Floats, rms_B: Floats, user_C: Ints, column_C: Ints) -> Floats:
        """Scores without the similarity."""
        total_C = pull_BW.take(user_C * pull_BW.shape[1] + column_C)
        total_C /= rms_B.take(user_C)
        total_C += np.float32(FILTER_FLOOR)
        np.log(total_C, out=total_C)
        total_C -= np.float32(LOG_FLOOR)
        total_C *= self._tables.filter_weight
        total_C += self._static_W.take(column_C)
        row_C = user_C * block.lift_BV.shape[1]
        for value_W in self._value_AW:
            total_C += block.lift_BV.take(row_C + value_W.take(column_C))
        return total_C

    def _similarity(self, block: _Block, user_C: Ints, column_C: Ints) -> Floats:
        target_CD = self._tables.target_ID.take(self._items_W.take(column_C), axis=0)
        found_C: Floats = np.vecdot(target_CD, block.users_BD.take(user_C, axis=0))
        return found_C


class _Pulls:
    """How far histories lead to columns: Σ strength · filter value."""

    def __init__(self, indptr: Ints, columns_E: Slots, values_E: Floats, *, num_columns: int) -> None:
        self._rows = _rows(indptr, columns_E, values_E, num_columns=num_columns)
        # MKL adds up in a dense row, at less than half the cost of scipy's sparse one; not every processor has it.
        self._rows_torch: torch.Tensor | None = None
        if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")  # said once
                self._rows_torch = _csr(self._rows)

    def of(self, starts_B: Ints, items_N: Ints, strengths_N: Floats, *, out: Floats) -> None:
        left = _rows(starts_B, items_N, strengths_N, num_columns=self._rows.shape[0])
        if self._rows_torch is None:
            (left @ self._rows).toarray(out=out)
        else:
            found = torch.from_numpy(out)
            torch.addmm(found, _csr(left), self._rows_torch, beta=0, out=found)


@dataclass(frozen=True)
class _Room:
    """Dense blocks, used again by one block of users after the other."""

    pull: Floats
    q: Floats
    is_great: Bools

    @classmethod
    def of(cls, num_users: int, num_columns: int) -> _Room:
        shape = (num_users, num_columns)
        return cls(np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(shape, bool))

    def where(self, q_BW: Floats, least_B: Floats) -> tuple[Ints, Ints]:
        """User and column of every q that is not below `least_B`."""
        is_great_BW = self.is_great[: len(q_BW)]
        np.greater_equal(q_BW, np.maximum(least_B, _LEAST)[:, None], out=is_great_BW)
        at_C = np.flatnonzero(is_great_BW)
        num_users, num_columns = q_BW.shape
        first_B = np.arange(num_users) * num_columns
        user_C = np.repeat(np.arange(num_users), np.diff(np.searchsorted(at_C, first_B), append=len(at_C)))
        return user_C, at_C - first_B.take(user_C)


def _rows(starts: Ints, columns: Ints | Slots, values: Floats, *, num_columns: int) -> sp.csr_matrix:
    """Compressed rows with the small indices that MKL takes."""
    parts = (values, columns.astype(np.int32), starts.astype(np.int32))
    return sp.csr_matrix(parts, shape=(len(starts) - 1, num_columns), copy=False)


def _csr(matrix: sp.csr_matrix) -> torch.Tensor:
    indptr, indices, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return torch.sparse_csr_tensor(indptr, indices, values, size=matrix.shape, check_invariants=False)


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
