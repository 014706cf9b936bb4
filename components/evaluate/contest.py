"""The same users, the whole catalogue, the same lists' length: every entrant ranks, in chunks of bounded memory.

Two settings. `new_items`: items that the user has had are taken out of every list, and only what was new to the user
counts as a hit; this is what the gates look at. `all_items`: everything competes and everything counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from components.evaluate.parts import ItemFacts
from components.measures.baselines import Baseline, OwnFrequency
from components.measures.interactions import Interactions
from components.measures.ranking import Ranked, top_lists
from components.model.histories import Histories
from components.model.rules import NO_LIST_RULES, ListRules, ruled_top_k
from components.model.score import REPEAT, Scorer

NEW_ITEMS = "new_items"
ALL_ITEMS = "all_items"
SETTINGS = (NEW_ITEMS, ALL_ITEMS)
MODEL = "model"
CHAMPION = "champion"

# Scores held at a time and worker: a chunk's users times the items.
_CHUNK_SCORES = 6_000_000

Track = Callable[[Iterable[Any], int], Iterable[Any]]


class Entrant(Protocol):
    """Whoever ranks items for users."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> tuple[str, ...]:
        """What it takes part in."""

    def scores(self, rows: np.ndarray) -> Iterable[tuple[str, Tensor]]:
        """Users (B,) -> (setting, scores (B, I)) of its settings; a tensor may be written into once it was looked at.

        The setting `new_items` comes last, since the user's own items are then taken out of the scores.
        """


class BaselineEntrant:
    """A fitted baseline: one score for both settings."""

    def __init__(self, baseline: Baseline) -> None:
        self.name = baseline.name
        # What a user has had most says nothing of what is new to the user.
        self.settings = (ALL_ITEMS,) if isinstance(baseline, OwnFrequency) else (ALL_ITEMS, NEW_ITEMS)
        self._baseline = baseline

    def scores(self, rows: np.ndarray) -> Iterable[tuple[str, Tensor]]:
        scores_BI = self._baseline.score(rows)
        for setting in self.settings:
            yield setting, scores_BI


class ModelEntrant:
    """The bundle's score, by the very code that serves."""

    name = MODEL
    settings = (ALL_ITEMS, NEW_ITEMS)

    def __init__(self, scorer: Scorer, *, histories: Histories, statistics: Tensor) -> None:
        """`histories` and `statistics` of all U users, as known at the cutoff."""
        self._scorer = scorer
        self._histories = histories
        self._statistics = statistics

    def scores(self, rows: np.ndarray) -> Iterable[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rows)
        histories, statistics = self._histories.rows(chosen), self._statistics[chosen]
        if not self._scorer.weights.repeat_scale > 0:
            for setting in self.settings:
                yield setting, self._scorer.score(histories, statistics, include_seen=setting == ALL_ITEMS).clone()
            return
        # A score is the sum of its terms. Where items seen before compete, all other terms are scaled alike and one is
        # added; without that one the order is the order of new items, so one pass ranks for both settings.
        terms = self._scorer.terms(histories, statistics, include_seen=True)
        repeat_BI = terms.pop(REPEAT)
        scores_BI = repeat_BI.clone()
        for term_BI in terms.values():
            scores_BI += term_BI
        yield ALL_ITEMS, scores_BI
        yield NEW_ITEMS, scores_BI.sub_(repeat_BI)


@dataclass(frozen=True, kw_only=True)
class NewItems:
    """The contest that the gates look at: R users, what was new to them, and every entrant's list for each."""

    rows: np.ndarray  # (R,) the users' rows in `known`
    targets: sp.csr_matrix  # (R, I + X)
    lists: Mapping[str, Ranked]
    known: Interactions
    items: ItemFacts

    def drawn(self, places: np.ndarray) -> NewItems:
        """The same contest over other users: the R' at `places`, repeats allowed."""
        return replace(
            self,
            rows=self.rows[places],
            targets=self.targets[places],
            lists={name: ranked[places] for name, ranked in self.lists.items()},
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: in operations this small, threads wait for each other more than they work."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def rank_users(
    entrants: Sequence[Entrant],
    *,
    rows: np.ndarray,
    seen: sp.csr_matrix,
    k: int,
    track: Track,
    settings: Sequence[str] = SETTINGS,
    rules: ListRules = NO_LIST_RULES,
) -> Mapping[str, Mapping[str, Ranked]]:
    """Users (R,) as rows of `seen` (U, I) -> setting -> entrant -> their lists (R, k).

    Chunks are worked on side by side, each by one thread. The model's lists and the champion's keep `rules`, as those
    that are served.
    """
    step = max(1, _CHUNK_SCORES // max(seen.shape[1], 1))
    chunks = [rows[start : start + step] for start in range(0, len(rows), step)]
    lists: dict[tuple[str, str], list[Ranked]] = {
        (setting, entrant.name): [] for entrant in entrants for setting in settings if setting in entrant.settings
    }

    def work(chunk: np.ndarray) -> dict[tuple[str, str], Ranked]:
        return _rank_chunk(entrants, chunk, seen=seen, k=k, settings=settings, rules=rules)

    num_workers = torch.get_num_threads()
    with one_thread(), ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for ranked in track(pool.map(work, chunks), len(chunks)):
            for key, part in ranked.items():
                lists[key].append(part)
    empty = np.empty((0, k), dtype=np.int64)
    whole = {key: np.concatenate([empty, *parts]) for key, parts in lists.items()}
    return {
        setting: {entrant.name: whole[setting, entrant.name] for entrant in entrants if setting in entrant.settings}
        for setting in settings
    }


def _rank_chunk(
    entrants: Sequence[Entrant],
    rows: np.ndarray,
    *,
    seen: sp.csr_matrix,
    k: int,
    settings: Sequence[str],
    rules: ListRules,
) -> dict[tuple[str, str], Ranked]:
    had = seen[rows]
    user_N = torch.from_numpy(np.repeat(np.arange(len(rows)), np.diff(had.indptr)))
    item_N = torch.from_numpy(had.indices.astype(np.int64))
    lists = {}
    for entrant in entrants:
        for setting, scores_BI in entrant.scores(rows):
            if setting not in settings:
                continue
            if setting == NEW_ITEMS:
                scores_BI[user_N, item_N] = -torch.inf
            if rules and entrant.name in (MODEL, CHAMPION):
                lists[setting, entrant.name] = ruled_top_k(scores_BI, rules, k=k)[0].numpy()
            else:
                lists[setting, entrant.name] = top_lists(scores_BI, k=k)
    return lists
