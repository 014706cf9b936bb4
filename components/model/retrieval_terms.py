"""The whole score of components/model/score.py, arranged for one user at a time.

    score(u, i) / s = static_i + w_sim cos(u, i) / τ + Σ_groups affinity_u[combination_i] + filter_ui + repeat_ui

static_i is the same for everybody: popularity, and the filter's floor, which is its value wherever a user's history
leads nowhere. An affinity depends on an item's codes alone, so attributes are put into groups of which few combinations
occur, and a user's affinities are worked out once a combination. The filter and the repeats speak of few items. s is
`ScoreWeights.repeat_scale` where seen items compete.

Legend of shape suffixes: I items by index, P items by place: in the order of static_i, the greatest first; D
dimensions, A attributes that count, V their values, side by side, U combinations of a group, N items of the history, E
entries of their filter rows, C the distinct places that these lead to, the history's own among them, ascending, T terms
of the score, k places of a list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.model.attributes import UNKNOWN
from components.model.histories import Histories
from components.model.score import REPEAT, SIMILARITY, Scorer
from components.model.terms import AFFINITY_PRIOR, FILTER_FLOOR, REPEAT_FLOOR, REPEAT_HALF_LIFE_DAYS

FILTER = "filter"
POPULARITIES = ("popularity", "recent_popularity")
LOG_FLOOR = math.log(FILTER_FLOOR)
ROUNDING = 1e-4
"""Room for it in a bound, relative to the score: scores are float32 sums of a handful of terms."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


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
    affinities: Sequence[Floats]
    """Sum of them for each combination (U,), by group."""
    filter: FilterPull
    history_N: Ints
    own_N: Ints
    """Where the history's items stand among the places that it leads to."""
    strengths_N: Floats
    repeat_N: Floats | None
    """Of the history's items; None where seen items do not compete."""
    scale: float


@dataclass(frozen=True)
class _Group:
    """Attributes of which few combinations occur."""

    values: tuple[Ints, ...]
    """Of each attribute, the value that each combination has (U,)."""
    combination_P: Slots


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
        self._take_values()
        self.groups = self._grouped()

    def of_user(
        self, histories: Histories, user_D: Floats, *, zeros_P: Floats, slots_P: Slots, include_seen: bool
    ) -> UserTerms:
        """`histories` of one user, `user_D` their unit vector. Scratch: `zeros_P` is all zero, and left so; `slots_P`
        is anything."""
        history_N = histories.items.numpy()
        strengths_N = histories.strengths(half_life_days=self.scorer.counted.half_life_days).numpy()
        lift_V = self.tastes(history_N, strengths_N, np.zeros(len(history_N), np.int64), num_users=1)[0]
        weights = self.scorer.weights
        pull = self._pull(history_N, strengths_N, zeros_P, slots_P)
        return UserTerms(
            user_D=user_D * np.float32(self.similarity_weight),
            lift_V=lift_V,
            affinities=[_sum(group, lift_V) for group in self.groups],
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
        for group, affinity_U in zip(self.groups, user.affinities, strict=True):
            total_C += affinity_U.take(group.combination_P[places_C])
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
        for group, affinity_U in zip(self.groups, user.affinities, strict=True):
            total += affinity_U.take(group.combination_P[first:end])
        return total

    def reach(self, user: UserTerms) -> tuple[float, float]:
        """The most that the similarity can add to an item's score, and the affinities."""
        similarity = float(np.linalg.norm(user.user_D)) * self.longest_target
        return similarity, sum(float(affinity_U.max()) for affinity_U in user.affinities)

    def run_above(self, static: float) -> int:
        """How many places hold at least so much for everybody."""
        return int(np.searchsorted(self._falling_P, np.float32(-static), side="right"))

    def lifts_of(self, user: UserTerms, items: Ints) -> Floats:
        """(k, T) what each term of `term_names` adds to the given items above the average item."""
        found = np.zeros((len(items), len(self.term_names(user))), np.float32)
        found[:, 0] = self.target_ID[items] @ user.user_D - self._mean_target_D @ user.user_D
        found[:, 1] = self._filter_of(user, items)
        if self.affinities:
            mean_A = np.add.reduceat(user.lift_V * self._share_V, self._first_A)
            found[:, self._affinity_columns] = user.lift_V.take(self.value_IA.take(items, axis=0)) - mean_A
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

    def tastes(self, items_N: Ints, strengths_N: Floats, user_N: Ints, *, num_users: int) -> Floats:
        """(B, V) affinities from the histories of B users: the weights times

            log(share / prior) = log(A / (total + A)) + log(count / (A prior) + 1)

        with A = AFFINITY_PRIOR. The second part is 0 for every value that a history lacks."""
        total_B = np.bincount(user_N, weights=strengths_N, minlength=num_users)
        lacking_B = np.log(AFFINITY_PRIOR / (total_B + AFFINITY_PRIOR)).astype(np.float32)
        lift_BV: Floats = lacking_B[:, None] * self._weight_V
        values_NA = self.value_IA.take(items_N, axis=0)
        at = (user_N[:, None] * len(self._weight_V) + values_NA).ravel()
        counts = np.bincount(at, weights=np.repeat(strengths_N, values_NA.shape[1]), minlength=lift_BV.size).take(at)
        values = values_NA.ravel()
        over_prior = counts.astype(np.float32) * self._over_prior_V.take(values)
        lift = np.repeat(lacking_B.take(user_N), values_NA.shape[1]) + np.log(over_prior + np.float32(1))
        lift_BV.ravel()[at] = lift * self._weight_V.take(values)
        return lift_BV

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

    def _take_values(self) -> None:
        """The values of all attributes that count, side by side: prior, weight, share, and which item has which."""
        counted, weights = self.scorer.counted, self.scorer.weights.terms
        names = [name for name in counted.attributes.affinity_names if weights.get(f"affinity_{name}", 0.0)]
        self.affinities = tuple(names)
        self._affinity_columns = [2 + counted.attributes.affinity_names.index(name) for name in names]
        priors = [counted.priors[name].numpy() for name in names]
        ends_A = np.cumsum([len(prior_V) for prior_V in priors], dtype=np.int64)
        self._first_A: Ints = np.array([0, *ends_A[:-1]], np.int64)[: len(priors)]
        self.value_ranges = [slice(*both) for both in zip(self._first_A.tolist(), ends_A.tolist(), strict=True)]
        prior_V: Floats = np.concatenate([*priors, np.zeros(0, np.float32)])
        self._over_prior_V: Floats = np.float32(1 / AFFINITY_PRIOR) / prior_V
        self._weight_V: Floats = np.zeros(len(prior_V), np.float32)
        for name, values in zip(names, self.value_ranges, strict=True):
            self._weight_V[values] = weights[f"affinity_{name}"]
        unknown_A = self._first_A + UNKNOWN  # an unknown value says nothing
        self._weight_V[unknown_A] = self._over_prior_V[unknown_A] = 0
        self.value_IA: Slots = np.empty((self.num_items, len(names)), np.int32)
        for column, (name, first) in enumerate(zip(names, self._first_A.tolist(), strict=True)):
            self.value_IA[:, column] = counted.attributes.codes(name).numpy() + first
        counts_V = np.bincount(self.value_IA.ravel(), minlength=len(prior_V))
        self._share_V: Floats = counts_V.astype(np.float32) / np.float32(max(self.num_items, 1))

    def _grouped(self) -> list[_Group]:
        """Attributes, those with few values first, in groups of at most an eighth as many combinations as items."""
        groups: list[_Group] = []
        most = max(self.num_items // 8, 1)
        sizes = [values.stop - values.start for values in self.value_ranges]
        for column in sorted(range(len(sizes)), key=sizes.__getitem__):
            first = self.value_ranges[column].start
            codes_P = self.value_IA[:, column].take(self.order_P) - np.int32(first)
            if groups:
                last = groups[-1]
                # Arrow finds what occurs by hashing; numpy would sort, a tenth of what loading a bundle takes.
                coded = pa.array(last.combination_P.astype(np.int64) * sizes[column] + codes_P).dictionary_encode()
                found_U = coded.dictionary.to_numpy()
                if len(found_U) <= most:
                    values = [value_U[found_U // sizes[column]] for value_U in last.values]
                    values.append(found_U % sizes[column] + first)
                    groups[-1] = _Group(tuple(values), coded.indices.to_numpy())
                    continue
            groups.append(_Group((np.arange(first, first + sizes[column]),), codes_P))
        return groups


def _sum(group: _Group, lift_V: Floats) -> Floats:
    total: Floats = lift_V.take(group.values[0])
    for value_U in group.values[1:]:
        total += lift_V.take(value_U)
    return total


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
