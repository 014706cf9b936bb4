"""The baselines' settings, chosen on the validation window: what is known at its start, what was taken inside of it.

The hold-out is not looked at. Each baseline gets the setting with the best recall, the first of equals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from components.evaluate.contest import ALL_ITEMS, NEW_ITEMS, BaselineEntrant, Track, rank_users
from components.measures.baselines import (
    AllTimePopularity,
    Baseline,
    CategoryPopularity,
    ItemKnn,
    OwnFrequency,
    RecentPopularity,
    Rp3,
)
from components.measures.interactions import Interactions
from components.measures.ranking import list_metrics

MAX_TUNING_USERS = 2000


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A baseline's setting, and what the settings it was chosen from were worth on the validation window."""

    baseline: Baseline
    recall_by_parameters: Mapping[str, float]


# One line a baseline: the settings that it may choose from. Where there is only one, nothing is tuned.
GRIDS: Mapping[str, Sequence[Callable[[], Baseline]]] = {
    "popularity": (AllTimePopularity,),
    "recent popularity": (RecentPopularity,),
    "category popularity": (lambda: CategoryPopularity(exponent=0.25), lambda: CategoryPopularity(exponent=0.5)),
    "item-kNN": (lambda: ItemKnn(user_exponent=0.0), lambda: ItemKnn(user_exponent=1.0)),
    "RP3": (lambda: Rp3(beta=0.0), lambda: Rp3(beta=0.3), lambda: Rp3(beta=0.6)),
    "own frequency": (lambda: OwnFrequency(is_decayed=False), lambda: OwnFrequency(is_decayed=True)),
}


def choose_baselines(known: Interactions, taken: sp.csr_matrix, *, k: int, seed: int, track: Track) -> list[Choice]:
    """`known` at the validation window's start, `taken` (U, I + X) inside of it -> one choice a line of GRIDS.

    The chosen baselines are fit on `known`; fit them again on what is known at the cutoff. Without a user who took
    something, the first setting of each line is the choice.
    """
    return [
        choose_baseline([make() for make in grid], known, taken, k=k, seed=seed, track=track) for grid in GRIDS.values()
    ]


def new_targets(taken: sp.csr_matrix, seen: sp.csr_matrix) -> sp.csr_matrix:
    """What users took (U, I + X) without what they had before (U, I)."""
    width = taken.shape[1]
    user_N = np.repeat(np.arange(taken.shape[0], dtype=np.int64), np.diff(taken.indptr))
    seen_user_N = np.repeat(np.arange(seen.shape[0], dtype=np.int64), np.diff(seen.indptr))
    key_N, seen_key_N = user_N * width + taken.indices, np.sort(seen_user_N * width + seen.indices)
    # One past the last key stands for 'not found'.
    found_N = np.append(seen_key_N, -1)[np.searchsorted(seen_key_N, key_N)]
    is_new = found_N != key_N
    return sp.csr_matrix((taken.data[is_new], (user_N[is_new], taken.indices[is_new])), shape=taken.shape)


def sample_rows(targets: sp.csr_matrix, *, most: int, seed: int) -> np.ndarray:
    """Rows with a target, at most so many of them, drawn without replacement and in order."""
    rows = np.flatnonzero(np.diff(targets.indptr))
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def choose_baseline(
    grid: Sequence[Baseline], known: Interactions, taken: sp.csr_matrix, *, k: int, seed: int, track: Track
) -> Choice:
    """The setting with the best recall; the first where nobody took anything, and of equals."""
    if len(grid) == 1:
        return Choice(baseline=grid[0], recall_by_parameters={})
    new = new_targets(taken, known.seen)
    recalls = []
    for baseline in grid:
        baseline.fit(known)
        entrant = BaselineEntrant(baseline)
        setting = NEW_ITEMS if NEW_ITEMS in entrant.settings else ALL_ITEMS
        targets = new if setting == NEW_ITEMS else taken
        rows = sample_rows(targets, most=MAX_TUNING_USERS, seed=seed)
        lists = rank_users([entrant], rows=rows, seen=known.seen, k=k, track=track, settings=(setting,))
        recalls.append(list_metrics(lists[setting][entrant.name], targets[rows]).means()["recall"])
    best = int(np.argmax(np.nan_to_num(recalls, nan=-1.0)))
    named = {describe(baseline) or "unset": recall for baseline, recall in zip(grid, recalls, strict=True)}
    return Choice(baseline=grid[best], recall_by_parameters=named)


def describe(baseline: Baseline) -> str:
    """'beta 0.3'; empty where nothing is set."""
    return ", ".join(_described(name, value) for name, value in baseline.parameters.items())


def _described(name: str, value: float) -> str:
    words = name.removesuffix("_days").replace("_", " ")
    return f"{words} {value:g}{' days' if name.endswith('_days') else ''}"
