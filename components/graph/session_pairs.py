"""Pairs of items that met in one session, counted for any cutoff.

The pairs of a log are expanded and sorted once; the counts as of an earlier cutoff are a filter and a sum over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# A session with more distinct items is a wholesaler's or a robot's: its pairs say little and cost squares.
MAX_SESSION_ITEMS = 200


@dataclass(frozen=True)
class SessionPairs:
    """One row an unordered pair of items and session, sorted by pair and actor."""

    pair_P: Ints  # low * num_items + high, low < high
    actor_P: Ints
    moment_P: npt.NDArray[np.float64]  # days; when the second of the two came
    num_items: int

    @classmethod
    def expand(
        cls,
        *,
        session_E: Ints,
        item_E: Ints,
        actor_E: Ints,
        moment_E: npt.NDArray[np.float64],
        num_items: int,
        min_distinct_users: int,
    ) -> SessionPairs:
        """Events with a session each. Pairs that meet in too few sessions to reach the floor are dropped here."""
        line, item_L, moment_L, actor_L = _lines(session_E, item_E, actor_E, moment_E, num_items)
        _, start, size = np.unique(line, return_index=True, return_counts=True)
        pairs, actors, moments = [], [], []
        for length in np.unique(size[(size >= 2) & (size <= MAX_SESSION_ITEMS)]):
            members = start[size == length][:, None] + np.arange(length)
            first, second = np.triu_indices(length, 1)
            low, high = members[:, first].ravel(), members[:, second].ravel()  # items ascend within a session
            pairs.append(item_L[low] * num_items + item_L[high])
            actors.append(actor_L[low])
            moments.append(np.maximum(moment_L[low], moment_L[high]))
        if not pairs:
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), num_items)
        pair = np.concatenate(pairs)
        # torch sorts integers several times faster than numpy
        ordered, order = (part.numpy() for part in torch.sort(torch.from_numpy(pair), stable=True))
        group = _group_ids(ordered)
        kept = np.bincount(group)[group] >= min_distinct_users
        pair, actor = ordered[kept], np.concatenate(actors)[order][kept]
        moment = np.concatenate(moments)[order][kept]
        by_actor = torch.argsort(torch.from_numpy(_group_ids(pair) * (int(actor.max(initial=0)) + 1) + actor)).numpy()
        return cls(pair[by_actor], actor[by_actor], moment[by_actor], num_items)

    def counts(
        self, *, cutoff: float, half_life_days: float, min_distinct_users: int
    ) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
        """As of `cutoff` (days): low, high, Σ decay of each pair that enough different actors made."""
        before = np.flatnonzero(self.moment_P < cutoff)
        pair, actor = self.pair_P[before], self.actor_P[before]
        if not len(pair):
            return pair, pair, np.zeros(0)
        group = _group_ids(pair)
        is_new_actor = np.ones(len(pair), dtype=bool)
        is_new_actor[1:] = (group[1:] != group[:-1]) | (actor[1:] != actor[:-1])
        actors_of_group = np.bincount(group, weights=is_new_actor)
        decay_P = np.exp2((self.moment_P[before] - cutoff) / half_life_days)
        weight: npt.NDArray[np.float64] = np.bincount(group, weights=decay_P).astype(np.float64)
        enough = np.flatnonzero(actors_of_group >= min_distinct_users)
        low, high = np.divmod(pair[np.searchsorted(group, enough)], self.num_items)
        return low, high, weight[enough]


def _lines(
    session_E: Ints, item_E: Ints, actor_E: Ints, moment_E: npt.NDArray[np.float64], num_items: int
) -> tuple[Ints, Ints, npt.NDArray[np.float64], Ints]:
    """One row a session and item: session, item, moment, actor; sorted by session and item.

    The moment is the item's first in the session: what comes after a cutoff then moves no count before it.
    """
    key = session_E * num_items + item_E
    order = np.lexsort((moment_E, key))
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = key[order][1:] != key[order][:-1]
    chosen = order[is_first]
    return session_E[chosen], item_E[chosen], moment_E[chosen], actor_E[chosen]


def _group_ids(ordered: Ints) -> Ints:
    """0, 0, 1, 2, 2, … over equal neighbours."""
    changes = np.zeros(len(ordered), dtype=np.int64)
    changes[1:] = ordered[1:] != ordered[:-1]
    return np.cumsum(changes, dtype=np.int64)
