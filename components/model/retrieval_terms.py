"""The whole score of components/model/score.py, arranged for one user at a time.

    score(u, i) / s = static_i + w_sim cos(u, i) / τ + Σ_attributes affinity_u[value_i] + filter_ui + repeat_ui

static_i is the same for everybody: popularity, and the filter's floor, which is its value wherever a user's history
leads nowhere. The filter and the repeats speak of few items. s is `ScoreWeights.repeat_scale` where seen items compete.

Legend of shape suffixes: I items by index, P items by place: in the order of static_i, the greatest first; D
dimensions, V the values of all attributes that count, N items of the history, E entries of their filter rows, C the
distinct places that these lead to, the history's own among them, ascending, T terms of the score, k places of a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.model.histories import Histories
from components.model.score import REPEAT, SIMILARITY, Scorer
from components.model.tastes import Floats, Ints, Slots, Tastes
from components.model.terms import FILTER_FLOOR, REPEAT_FLOOR, REPEAT_HALF_LIFE_DAYS

FILTER = "filter"
POPULARITIES = ("popularity", "recent_popularity")
LOG_FLOOR = math.log(FILTER_FLOOR)
ROUNDING = 1e-4
"""Room for it in a bound, relative to the score: scores are float32 sums of a handful of terms."""

Bools = npt.NDArray[np.bool_]


def shown(scores: Floats) -> list[Any]:
    """Scores as they are given out. More than six digits of a float32 say nothing, and take twice as long to write."""
    digits: list[Any] = np.round(scores.astype(np.float64), 6).tolist()
    return digits


@dataclass(frozen=True, kw_only=True)
class FilterPull:
    """Where a history leads."""

    places_E: Ints
    """Where each entry leads."""
    ends_N: Ints
    """Where the entries of each item of the history end."""
    pull_E: Floats
    """Strength of that item times its filter value."""
    places_C: Slots
    log_C: Floats
    """The filter's term, unweighted: log(Σ pull / rms + floor)."""
    mean: float
    """Mean of the term over all items."""


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The entries of a history's filter rows that lead to an item of a list."""

    place_H: Ints
    """Of the item, in the list."""
    from_H: Ints
    """The item of the history, by its position there."""
    pull_H: Floats


NO_HITS = Hits(place_H=np.zeros(0, np.int64), from_H=np.zeros(0, np.int64), pull_H=np.zeros(0, np.float32))


@dataclass(frozen=True, kw_only=True)
class UserTerms:
    """What the terms say of one user. All but the filter's are weighted; none has the scale yet."""

    user_D: Floats
    """Unit user vector times w_sim / τ."""
    lift_V: Floats
    """Affinity of each value."""
    filter: FilterPull
    history_N: Ints
    own_N: Ints
    """Where the history's items stand among the places that it leads to."""
    strengths_N: Floats
    repeat_N: Floats | None
    """Of the history's items; None where seen items do not compete."""
    scale: float


class TermTables:
    """What of the terms does not depend on the user."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.num_items = scorer.num_items
        counted, weights = scorer.counted, scorer.weights.terms
        self.similarity_weight = weights.get(SIMILARITY, 0.0) / scorer.temperature
        self.filter_weight = np.float32(weights.get(FILTER, 0.0))
        users = zip(POPULARITIES, (counted.popularity.ever_I, counted.popularity.recent_I), strict=True)
        self.popularity = {
            name: (weights.get(name, 0.0) * np.log1p(users_I.numpy())).astype(np.float32) for name, users_I in users
        }
        self._popularity_means = {
            name: np.float32(term.mean(dtype=np.float64)) for name, term in self.popularity.items()
        }
        static_I = sum(self.popularity.values(), np.full(self.num_items, self.filter_weight * LOG_FLOOR, np.float32))
        self.order_P: Ints = np.argsort(-static_I, kind="stable")
        self.place_I: Slots = np.empty(self.num_items, np.int32)  # half the memory sorts twice as fast
        self.place_I[self.order_P] = np.arange(self.num_items)
        self.static_P: Floats = static_I[self.order_P]
        self._falling_P: Floats = -self.static_P  # ascending, for a search
        rows = counted.filter_rows
        self._indptr, self._indices, self._values = rows.indptr.numpy(), rows.indices.numpy(), rows.values.numpy()
        self.row_means_I: Floats = rows.row_means.numpy()
        self.target_ID: Floats = scorer.target_ID.numpy()
        # A run of (D, I) is read in order, several times quicker than rows of (I, D).
        self._target_DP: Floats = np.ascontiguousarray(self.target_ID[self.order_P].T)
        self._mean_target_D = self.target_ID.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.longest_target = float(np.sqrt(np.einsum("id,id->i", self.target_ID, self.target_ID).max(initial=0)))
        self._names = (SIMILARITY, *counted.names)
        self._names_seen = (*self._names, REPEAT)
        self.tastes = Tastes(scorer, self.order_P)
        self._taste_columns = [2 + place for place in self.tastes.places]

    def of_user(
        self, histories: Histories, user_D: Floats, *, zeros_P: Floats, slots_P: Slots, include_seen: bool
    ) -> UserTerms:
        """`histories` of one user, `user_D` their unit vector. Scratch: `zeros_P` is all zero, and left so; `slots_P`
        is anything."""
        history_N = histories.items.numpy()
        strengths_N = histories.strengths(half_life_days=self.scorer.counted.half_life_days).numpy()
        weights = self.scorer.weights
        pull = self._pull(history_N, strengths_N, zeros_P, slots_P)
        return UserTerms(
            user_D=user_D * np.float32(self.similarity_weight),
            lift_V=self.tastes.of_user(self.place_I[history_N], strengths_N),
            filter=pull,
            history_N=history_N,
            own_N=np.searchsorted(pull.places_C, self.place_I[history_N]),
            strengths_N=strengths_N,
            repeat_N=_repeat(histories) * np.float32(weights.repeat) if include_seen else None,
            scale=weights.repeat_scale if include_seen else 1.0,
        )

    def partial_led_to(self, user: UserTerms) -> Floats:
        """(C,) scores, over the scale and without the similarity, of what the history leads to."""
        places_C = user.filter.places_C
        total_C = (user.filter.log_C - np.float32(LOG_FLOOR)) * self.filter_weight
        total_C += self.static_P[places_C]
        total_C += self.tastes.at(user.lift_V, places_C)
        if user.repeat_N is not None:
            total_C[user.own_N] += user.repeat_N / np.float32(user.scale)
        return total_C

    def similarity(self, user: UserTerms, places: Ints | Slots) -> Floats:
        """Weighted, of a few places."""
        found: Floats = self.target_ID[self.order_P[places]] @ user.user_D
        return found

    def score_run(self, user: UserTerms, first: int, end: int) -> Floats:
        """The same of the places from `first` on, as if the history led nowhere."""
        total: Floats = user.user_D @ self._target_DP[:, first:end]
        total += self.static_P[first:end]
        total += self.tastes.at(user.lift_V, slice(first, end))
        return total

    def reach(self, user: UserTerms) -> tuple[float, float]:
        """The most that the similarity can add to an item's score, and the affinities."""
        similarity = float(np.linalg.norm(user.user_D)) * self.longest_target
        return similarity, self.tastes.reach(user.lift_V)

    def run_above(self, static: float) -> int:
        """How many places hold at least so much for everybody."""
        return int(np.searchsorted(self._falling_P, np.float32(-static), side="right"))

    def lifts_of(self, user: UserTerms, items: Ints) -> Floats:
        """(k, T) what each term of `term_names` adds to the given items above the average item."""
        found = np.zeros((len(items), len(self.term_names(user))), np.float32)
        found[:, 0] = self.target_ID[items] @ user.user_D - self._mean_target_D @ user.user_D
        found[:, 1] = self._filter_of(user, items)
        found[:, self._taste_columns] = self.tastes.above_average(user.lift_V, self.place_I[items])
        for column, name in enumerate(POPULARITIES, start=2 + len(self.scorer.counted.attributes.affinity_names)):
            found[:, column] = self.popularity[name].take(items) - self._popularity_means[name]
        if user.repeat_N is not None:
            found *= np.float32(user.scale)
            own = dict(zip(user.history_N.tolist(), user.repeat_N.tolist(), strict=True))
            mean = float(user.repeat_N.sum()) / self.num_items
            found[:, -1] = [own.get(item, 0.0) - mean for item in items.tolist()]
        return found

    def term_names(self, user: UserTerms) -> tuple[str, ...]:
        """In the order of `Scorer.terms`."""
        return self._names if user.repeat_N is None else self._names_seen

    def hits_of(self, user: UserTerms, items: Ints, *, false_P: Bools) -> Hits:
        """What of the history leads to each of a few distinct items. `false_P` is all false, and left so."""
        pull, places_k = user.filter, self.place_I[items]
        false_P[places_k] = True
        hit_H = np.flatnonzero(false_P.take(pull.places_E))
        false_P[places_k] = False
        order_k = np.argsort(places_k)
        return Hits(
            place_H=order_k[np.searchsorted(places_k[order_k], pull.places_E[hit_H])],
            from_H=np.searchsorted(pull.ends_N, hit_H, side="right"),
            pull_H=pull.pull_E[hit_H],
        )

    def _filter_of(self, user: UserTerms, items: Ints) -> Floats:
        pull, places_k = user.filter, self.place_I[items]
        log_k = np.full(len(items), LOG_FLOOR, np.float32)
        if len(pull.places_C):
            at_k = np.searchsorted(pull.places_C, places_k).clip(max=len(pull.places_C) - 1)
            is_led_to_k = pull.places_C[at_k] == places_k
            log_k[is_led_to_k] = pull.log_C[at_k[is_led_to_k]]
        return (log_k - np.float32(pull.mean)) * self.filter_weight

    def _pull(self, history_N: Ints, strengths_N: Floats, zeros_P: Floats, slots_P: Slots) -> FilterPull:
        first_N = self._indptr[history_N]
        lengths_N = self._indptr[history_N + 1] - first_N
        ends_N = np.cumsum(lengths_N)
        entry_E = np.arange(int(ends_N[-1]) if len(ends_N) else 0)
        entry_E += np.repeat(first_N - (ends_N - lengths_N), lengths_N)
        pull_E = self._values.take(entry_E) * np.repeat(strengths_N, lengths_N)
        # Of the size of a pointer, else each of the steps that index by them would make them so.
        places_E = self.place_I.take(self._indices.take(entry_E)).astype(np.intp)
        np.add.at(zeros_P, places_E, pull_E)
        places_C = _distinct(np.concatenate([places_E, self.place_I[history_N]]), slots_P)
        raw_C = zeros_P.take(places_C)
        zeros_P[places_C] = 0
        rms = max(math.sqrt(float(raw_C @ raw_C) / self.num_items), 1e-12)
        log_C = np.log(raw_C / np.float32(rms) + np.float32(FILTER_FLOOR))
        return FilterPull(
            places_E=places_E,
            ends_N=ends_N,
            pull_E=pull_E,
            places_C=places_C,
            log_C=log_C,
            mean=LOG_FLOOR + float((log_C - np.float32(LOG_FLOOR)).sum(dtype=np.float64)) / self.num_items,
        )


def _distinct(places: Ints, slots_P: Slots) -> Slots:
    """Ascending. Repeats are struck out before the sort, which would be half of a request's arithmetic with them."""
    at = np.arange(len(places), dtype=np.int32)
    slots_P[places] = at
    found: Slots = places[slots_P.take(places) == at].astype(np.int32)
    found.sort()
    return found


def _repeat(histories: Histories) -> Floats:
    """As `CountedTerms.repeat`, for the history's items alone -> (N,)."""
    decay_N = np.exp2(-histories.ages_days.numpy().clip(min=0) / np.float32(REPEAT_HALF_LIFE_DAYS))
    counted_N: Floats = np.log1p(histories.weights.numpy() * decay_N / np.float32(REPEAT_FLOOR))
    return counted_N
