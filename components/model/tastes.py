"""The affinity terms of components/model/terms.py for a few users at a time, the values of all attributes side by side.

Legend of shape suffixes: B users, N items of their histories, P items by place, A attributes that count, V their
values, k places that are asked for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from components.model.attributes import UNKNOWN
from components.model.history_sums import Floats, HistorySums, Ints, Slots
from components.model.score import Scorer
from components.model.terms import AFFINITY_PRIOR


class Tastes:
    """Which values a user chooses more often than others do. An affinity depends on an item's values alone."""

    def __init__(self, scorer: Scorer, order_P: Ints) -> None:
        """`order_P`: the items in the order in which the tables of retrieval are laid out."""
        counted, weights = scorer.counted, scorer.weights.terms
        attributes = counted.attributes
        names = [name for name in attributes.affinity_names if weights.get(f"affinity_{name}", 0.0)]
        self.places = [attributes.affinity_names.index(name) for name in names]
        """Of the attributes that count, among all that a taste can be had for."""
        priors = [counted.priors[name].numpy() for name in names]
        self.weight_A = np.array([weights[f"affinity_{name}"] for name in names], np.float32)
        ends_A = np.cumsum([len(prior_V) for prior_V in priors], dtype=np.int64)
        self._first_A: Ints = np.array([0, *ends_A[:-1]], np.int64)[: len(names)]
        self._ranges = [slice(*both) for both in zip(self._first_A.tolist(), ends_A.tolist(), strict=True)]
        prior_V: Floats = np.concatenate([*priors, np.zeros(0, np.float32)])
        self._over_prior_V: Floats = np.float32(1 / AFFINITY_PRIOR) / prior_V
        self._weight_V: Floats = np.zeros(len(prior_V), np.float32)
        for name, values in zip(names, self._ranges, strict=True):
            self._weight_V[values] = weights[f"affinity_{name}"]
        unknown_A = self._first_A + UNKNOWN  # an unknown value says nothing
        self._weight_V[unknown_A] = self._over_prior_V[unknown_A] = 0
        # Of the size of a pointer, else each step that indexes by them would make them so.
        self.value_PA: Ints = np.empty((scorer.num_items, len(names)), np.int64)
        for column, (name, first) in enumerate(zip(names, self._first_A.tolist(), strict=True)):
            self.value_PA[:, column] = attributes.codes(name).numpy().take(order_P) + first
        counts_V = np.bincount(self.value_PA.ravel(), minlength=len(prior_V))
        self._share_V: Floats = counts_V.astype(np.float32) / np.float32(max(scorer.num_items, 1))

    def of_user(self, places_N: Ints | Slots, strengths_N: Floats) -> Floats:
        """(V,) what each value counts for a user: the weights times

            log(share / prior) = log(A / (total + A)) + log(count / (A prior) + 1)

        with A = AFFINITY_PRIOR. The second part is 0 for every value that a history lacks."""
        num_values, num_attributes = len(self._weight_V), self.value_PA.shape[1]
        values = self.value_PA.take(places_N, axis=0).ravel()
        counts_V = np.bincount(values, weights=np.repeat(strengths_N, num_attributes), minlength=num_values)
        over_V = counts_V.astype(np.float32)
        over_V *= self._over_prior_V
        return self.lifts(over_V[None], strengths_N.sum(dtype=np.float64)[None])[0]

    def sums(self, place_I: Slots) -> HistorySums:
        """Of histories: count / (A prior) of each value, which is what `lifts` takes. Items by index."""
        values = self.value_PA.take(place_I, axis=0).ravel()
        starts = np.arange(len(place_I) + 1) * self.value_PA.shape[1]
        return HistorySums(starts, values, self._over_prior_V.take(values), num_columns=len(self._weight_V))

    def lifts(self, over_BV: Floats, total_B: npt.NDArray[np.float64]) -> Floats:
        """`of_user` for many. `over_BV`, which becomes the result: count / (A prior); `total_B`: sums of strengths."""
        lacking_B = np.log(AFFINITY_PRIOR / (total_B + AFFINITY_PRIOR)).astype(np.float32)
        over_BV += np.float32(1)
        np.log(over_BV, out=over_BV)
        over_BV += lacking_B[:, None]
        over_BV *= self._weight_V
        return over_BV

    def at(self, lift_V: Floats, places: Ints | Slots | slice) -> Floats:
        """(k,) affinity of a user for the items of some places: the sum over attributes."""
        values_kA = self.value_PA[places] if isinstance(places, slice) else self.value_PA.take(places, axis=0)
        lift_kA = lift_V.take(values_kA)
        found: Floats = np.zeros(len(lift_kA), np.float32)
        for lift_k in lift_kA.T:  # in one order for every item: equal items stay equal
            found += lift_k
        return found

    def above_average(self, lift_V: Floats, places: Ints | Slots) -> Floats:
        """(k, A) by attribute, less what the average item has."""
        if not self.places:
            return np.zeros((len(places), 0), np.float32)
        mean_A = np.add.reduceat(lift_V * self._share_V, self._first_A)
        found: Floats = lift_V.take(self.value_PA.take(places, axis=0)) - mean_A
        return found

    def reach(self, lift_BV: Floats) -> Floats:
        """(B, A) the most that an item can have of each attribute."""
        columns = [lift_BV[:, values].max(axis=1) for values in self._ranges]
        return np.stack(columns, axis=1) if columns else np.zeros((len(lift_BV), 0), np.float32)
