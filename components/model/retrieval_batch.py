"""The lists of many users at once: those of components/model/retrieval.py, by retrieval_batch.c.

Few items are ever led to by a history: those that some filter row names. With the most popular items they are the
columns that a list is chosen from. User after user, filter rows are added up to how far the history leads to every
column, and

    q_uc = (pull_uc + floor · rms_u) exp(static_c / w_filter)

orders a user's columns as filter and static do together, without a logarithm for each. The columns of the greatest q
are scored whole; the k-th best of them is a floor, which says how great a q has to be for affinities and similarity to
lift a column over it (the bound of retrieval.py). Of such columns the affinities are looked up, and the similarity
where these leave them a chance.

It is in C because numpy reads a user's row of columns anew for each of these steps, from memory by then.

Legend of shape suffixes: I items by index, P items by place (retrieval_terms.py), W columns by place, E entries of the
columns' filter rows, A attributes that count, V the values of all, D dimensions, B users, N entries of their histories.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from components.model.compiled import library
from components.model.histories import Histories
from components.model.retrieval_terms import LOG_FLOOR, ROUNDING, Bools, TermTables, shown
from components.model.tastes import Floats
from components.model.terms import AFFINITY_PRIOR, FILTER_FLOOR

List = tuple[list[int], list[float]]

_POPULAR = 256  # the first places are columns, whether led to or not
_RUN = 32  # as in the C file
_MOST_EXPONENT = 60.0  # of exp(static / w_filter), so that float32 holds every q
_LEAST_RMS = 1e-6  # of pulls; below it q might leave what float32 holds

_WHOLE, _REAL, _ARRAY = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class _Tables(ctypes.Structure):
    """`struct tables` of the C file, where each is said what it is."""

    _fields_ = (
        *((name, _WHOLE) for name in ("num_items", "num_columns", "num_attributes", "num_values", "num_dimensions")),
        *(
            (name, _ARRAY)
            for name in ("starts_I", "column_E", "pull_E", "column_I", "item_W", "value_IA", "value_WA", "first_A")
        ),
        *((name, _ARRAY) for name in ("over_prior_V", "weight_V", "target_ID")),
        *((name, _REAL) for name in ("filter_weight", "greatest", "log_floor", "filter_floor", "prior")),
        *((name, _REAL) for name in ("longest_target", "rounding", "least_rms", "most_exponent")),
    )


class _Users(ctypes.Structure):
    """`struct users`."""

    _fields_ = (
        *((name, _WHOLE) for name in ("num_users", "k")),
        ("outside", _REAL),
        *((name, _ARRAY) for name in ("starts_B", "item_N", "strength_N", "vector_BD", "rise_W")),
        *((name, _ARRAY) for name in ("q_W", "most_R", "lift_V", "over_V")),
        *((name, _ARRAY) for name in ("item_Bk", "score_Bk", "is_whole_B")),
    )


class BatchRetrieval:
    """Ranks many users for items new to them. Safe to share between threads."""

    def __init__(self, tables: TermTables) -> None:
        self._tables = tables
        rows, tastes = tables.scorer.counted.filter_rows, tables.tastes
        place_E = tables.place_I[rows.indices.numpy()]
        is_column_P = np.zeros(tables.num_items, dtype=bool)
        is_column_P[place_E] = True
        is_column_P[:_POPULAR] = True
        self._is_outside_P: Bools = ~is_column_P
        column_P = np.where(is_column_P, np.cumsum(is_column_P) - 1, -1).astype(np.int32)
        places_W = np.flatnonzero(is_column_P)
        self._items_W = tables.order_P[places_W]
        static_W = tables.static_P[places_W].astype(np.float64)
        weight, greatest = float(tables.filter_weight), float(static_W.max(initial=0.0))
        has_q = weight > 0 and greatest - float(static_W.min(initial=0.0)) <= _MOST_EXPONENT * weight
        # Without it every list is None.
        self._library = library("retrieval_batch") if has_q else None
        rise_W = np.exp((static_W - greatest) / weight) if has_q else np.zeros_like(static_W)
        self._rise_W: Floats = rise_W.astype(np.float32)
        value_IA = np.empty_like(tastes.value_PA, dtype=np.int32)
        value_IA[tables.order_P] = tastes.value_PA
        _check(rows.indptr.numpy(), len(place_E), value_IA, len(tastes.weight_V))
        self._struct = _Tables(
            num_items=tables.num_items,
            num_columns=len(places_W),
            num_attributes=value_IA.shape[1],
            num_values=len(tastes.weight_V),
            num_dimensions=tables.target_ID.shape[1],
            filter_weight=weight,
            greatest=greatest,
            log_floor=LOG_FLOOR,
            filter_floor=FILTER_FLOOR,
            prior=AFFINITY_PRIOR,
            longest_target=tables.longest_target,
            rounding=ROUNDING,
            least_rms=_LEAST_RMS,
            most_exponent=_MOST_EXPONENT,
        )
        self._held = _point(
            self._struct,
            starts_I=(rows.indptr.numpy(), np.int64),
            column_E=(column_P[place_E], np.int32),
            pull_E=(rows.values.numpy(), np.float32),
            column_I=(column_P[tables.place_I], np.int32),
            item_W=(self._items_W, np.int32),
            value_IA=(value_IA, np.int32),
            value_WA=(value_IA[self._items_W], np.int32),
            first_A=(tastes.starts_A, np.int64),
            over_prior_V=(tastes.over_prior_V, np.float32),
            weight_V=(tastes.weight_V, np.float32),
            target_ID=(tables.target_ID, np.float32),
        )

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
        num_users, num_columns = len(histories), self._struct.num_columns
        if self._library is None:
            yield from [None] * num_users
            return
        tables = self._tables
        items_N = histories.items.numpy()
        if len(items_N) and not 0 <= items_N.min() <= items_N.max() < tables.num_items:
            raise IndexError(f"Histories hold items outside the bundle's {tables.num_items}.")
        item_Bk, score_Bk = np.zeros((num_users, k), np.int32), np.zeros((num_users, k), np.float32)
        is_whole_B = np.zeros(num_users, np.uint8)
        strength_N = histories.strengths(half_life_days=tables.scorer.counted.half_life_days).numpy()
        asked = _Users(num_users=num_users, k=k, outside=self._best_outside(allowed, run_limit))
        held = _point(
            asked,
            starts_B=(histories.indptr.numpy(), np.int64),
            item_N=(items_N, np.int64),
            strength_N=(strength_N, np.float32),
            vector_BD=(vectors * np.float32(tables.similarity_weight), np.float32),
            rise_W=(self._rise_W if allowed is None else self._rise_W * allowed[self._items_W], np.float32),
            q_W=(np.zeros(num_columns + _RUN, np.float32), np.float32),
            most_R=(np.empty(num_columns // _RUN + 1, np.float32), np.float32),
            lift_V=(np.empty(self._struct.num_values, np.float32), np.float32),
            over_V=(np.zeros(self._struct.num_values, np.float32), np.float32),
            item_Bk=(item_Bk, np.int32),
            score_Bk=(score_Bk, np.float32),
            is_whole_B=(is_whole_B, np.uint8),
        )
        self._library.rank_batch(ctypes.byref(self._struct), ctypes.byref(asked))
        del held  # not before
        for items, scores, is_whole in zip(item_Bk.tolist(), shown(score_Bk), is_whole_B.tolist(), strict=True):
            yield (items, scores) if is_whole else None

    def _best_outside(self, allowed: Bools | None, run_limit: int | None) -> float:
        """The most that anybody gets whose place is no column, or beyond the limit of a single user's run."""
        is_outside_P = self._is_outside_P if allowed is None else self._is_outside_P & allowed[self._tables.order_P]
        place = int(is_outside_P.argmax()) if is_outside_P.any() else len(is_outside_P)
        place = place if run_limit is None else min(place, run_limit)
        return float(self._tables.static_P[place]) if place < len(is_outside_P) else -math.inf


def _point(struct: ctypes.Structure, **arrays: tuple[npt.NDArray[Any], type[np.generic]]) -> list[npt.NDArray[Any]]:
    """Sets the struct's pointers. What they point to lives as long as the list that is returned."""
    held = []
    for name, (array, dtype) in arrays.items():
        held.append(np.ascontiguousarray(array, dtype=dtype))
        setattr(struct, name, held[-1].ctypes.data)
    return held


def _check(starts_I: npt.NDArray[np.int64], num_entries: int, value_IA: npt.NDArray[np.int32], num_values: int) -> None:
    """C looks up nothing outside: what the bundle says has to be sound, however it was written."""
    are_rows = starts_I[0] == 0 and starts_I[-1] == num_entries and bool((np.diff(starts_I) >= 0).all())
    if not are_rows or (value_IA.size and not 0 <= value_IA.min() <= value_IA.max() < num_values):
        raise ValueError("The bundle's filter rows or attributes are damaged. Build it anew.")
