"""The affinity terms of components/model/terms.py for one user at a time, the values of all attributes side by side.

Legend of shape suffixes: N items of a history, P items by place, A attributes that count, V their values, k places that
are asked for.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from components.model.attributes import UNKNOWN
from components.model.score import Scorer
from components.model.terms import AFFINITY_PRIOR

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]


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
        self.starts_A: Ints = np.cumsum([0, *(len(prior_V) for prior_V in priors)], dtype=np.int64)
        """(A + 1,) where an attribute's values start, and the end of the last."""
        self._first_A = self.starts_A[:-1]
        self._ranges = [slice(*both) for both in itertools.pairwise(self.starts_A.tolist())]
        prior_V: Floats = np.concatenate([*priors, np.zeros(0, np.float32)])
        self.over_prior_V: Floats = np.float32(1 / AFFINITY_PRIOR) / prior_V
        self.weight_V: Floats = np.zeros(len(prior_V), np.float32)
        for name, values in zip(names, self._ranges, strict=True):
            self.weight_V[values] = weights[f"affinity_{name}"]
        unknown_A = self._first_A + UNKNOWN  # an unknown value says nothing
        self.weight_V[unknown_A] = self.over_prior_V[unknown_A] = 0
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
        num_values, num_attributes = len(self.weight_V), self.value_PA.shape[1]
        values = self.value_PA.take(places_N, axis=0).ravel()
        counts_V = np.bincount(values, weights=np.repeat(strengths_N, num_attributes), minlength=num_values)
        lift_V = counts_V.astype(np.float32)
        lift_V *= self.over_prior_V
        lift_V += np.float32(1)
        np.log(lift_V, out=lift_V)
        total = strengths_N.sum(dtype=np.float64)
        lift_V += np.float32(np.log(AFFINITY_PRIOR / (total + AFFINITY_PRIOR)))
        lift_V *= self.weight_V
        return lift_V

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

    def reach(self, lift_V: Floats) -> float:
        """The most that an item can have of all attributes together."""
        return float(sum(lift_V[values].max() for values in self._ranges))
