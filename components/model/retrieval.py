"""The best items of one user by the whole score, as the service asks for them: exact, without looking at every item.

Items are laid out by what everybody gets (popularity), the most first. What the history leads to is scored at once, and
the k-th best of it is a floor: an item that the history does not lead to can pass it only if

    static_i  >=  floor - (w_sim |u| max|t| + the user's greatest affinity of each attribute)

so that a first run of the layout holds every candidate, and its vectors are one run of memory (the idea of maxscore:
Turtle & Flood, 1995). The bound holds whatever a filter leaves, since fewer items mean a lower floor and a longer run.
A bundle of more than EXACT_ITEMS may carry a limit of that run, where the lists stay nearly the same: what share of
them is then found was measured when the bundle was built (components/train/index.py).

components/model/score.py stays the one definition: the lists are its lists.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.model.histories import Histories
from components.model.ranking import NO_ITEM
from components.model.retrieval_batch import BatchRetrieval, List
from components.model.retrieval_terms import NO_HITS, ROUNDING, Bools, Hits, TermTables, UserTerms, shown
from components.model.rules import NO_LIST_RULES, ListRules
from components.model.score import Scorer
from components.model.tastes import Floats, Ints, Slots

EXACT_ITEMS = 100_000
"""Up to as many items, no limit is taken."""
_GROUP = 64  # items whose maximum is looked at before they are


def _lowered(floor: float, by: float) -> float:
    """What an item needs without a part that adds `by` at most."""
    return floor - by - ROUNDING * max(1.0, abs(floor))


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A list: best first, equal scores by index; as many items as are left, k at most."""

    items: Ints  # (k,)
    scores: Floats  # (k,)
    terms: tuple[str, ...]
    """In the order of `Scorer.terms`."""
    lift_kT: Floats
    """What each term adds to the items above the average item: (k, T)."""
    hits: Hits
    """What of the history leads to the items."""
    user: UserTerms
    row_means_I: Floats
    """What an item adds to the average item that its filter row leads to (`FilterRows.row_means`)."""
    num_scored: int
    """Items that were looked at."""

    def only(self, places: Sequence[int]) -> Ranked:
        """Some places of the list, in the given order."""
        at = np.asarray(places, dtype=np.int64)
        place_of = np.full(len(self.items), -1)
        place_of[at] = np.arange(len(at))
        place_H = place_of[self.hits.place_H]
        kept = place_H >= 0
        hits = Hits(place_H=place_H[kept], from_H=self.hits.from_H[kept], pull_H=self.hits.pull_H[kept])
        return replace(self, items=self.items[at], scores=self.scores[at], lift_kT=self.lift_kT[at], hits=hits)


class Retrieval:
    """Ranks for a user, or for many at once. Safe to share between threads."""

    def __init__(self, scorer: Scorer, *, run_limit: int | None = None) -> None:
        """`run_limit`: items of the layout looked at, at most, where enough are left among them; None: exact."""
        if scorer.weights.repeat_scale <= 0:
            raise ValueError("The score's repeat_scale must be above 0: all terms but repeats would count nothing.")
        self.scorer = scorer
        self.tables = TermTables(scorer)
        self.run_limit = run_limit
        self._local = threading.local()

    @property
    def num_items(self) -> int:
        return self.tables.num_items

    @torch.inference_mode()
    def user_vectors(self, histories: Histories, statistics_BF: Tensor) -> Floats:
        """Raw statistics (B, F), nan where unknown -> (B, D) unit vectors."""
        vectors: Floats = self.scorer.user_vectors(histories, statistics_BF).numpy()
        return vectors

    def rank(
        self,
        histories: Histories,
        statistics_BF: Tensor,
        *,
        k: int,
        include_seen: bool = False,
        allowed: npt.NDArray[np.bool_] | None = None,
        rules: ListRules = NO_LIST_RULES,
        with_reasons: bool = True,
    ) -> Ranked:
        """The k best items for one user (`histories` and `statistics_BF` of one row).

        Args:
            include_seen: let the history's items compete.
            allowed: (I,) whether an item may be listed; None: all.
            rules: kept in the list.
            with_reasons: what `explain_listed` needs; False: `Ranked.lift_kT` and `hits` are empty.
        """
        user_D = self.user_vectors(histories, statistics_BF)[0]
        return self.rank_known(
            histories, user_D, k=k, include_seen=include_seen, allowed=allowed, rules=rules, with_reasons=with_reasons
        )

    def rank_known(
        self,
        histories: Histories,
        user_D: Floats,
        *,
        k: int,
        include_seen: bool,
        allowed: npt.NDArray[np.bool_] | None,
        rules: ListRules,
        with_reasons: bool,
    ) -> Ranked:
        """`rank`, where the user's vector is known."""
        tables = self.tables
        zeros_P, slots_P, false_P = self._scratch()
        user = tables.of_user(histories, user_D, zeros_P=zeros_P, slots_P=slots_P, include_seen=include_seen)
        candidates = _Candidates(tables, user, allowed=allowed, run_limit=self.run_limit)
        items, scores = _ruled(candidates.best, k=min(k, self.num_items), rules=rules, num_items=self.num_items)
        return Ranked(
            items=items,
            scores=scores * np.float32(user.scale),
            terms=tables.term_names(user),
            lift_kT=tables.lifts_of(user, items) if with_reasons else np.zeros((len(items), 0), np.float32),
            hits=tables.hits_of(user, items, false_P=false_P) if with_reasons else NO_HITS,
            user=user,
            row_means_I=tables.row_means_I,
            num_scored=candidates.num_scored,
        )

    @torch.inference_mode()
    def rank_many(
        self,
        histories: Histories,
        users_BD: Floats,
        *,
        k: int,
        include_seen: bool,
        allowed: npt.NDArray[np.bool_] | None,
        rules: ListRules,
    ) -> list[List]:
        """Items and scores of `rank_known`'s list for each of B users, far cheaper where the same holds for most of a
        batch: no rules, new items only. Who needs more, or a longer look than a batch takes, is ranked alone."""
        found: Iterable[List | None] = [None] * len(histories)
        if not rules and not include_seen:
            found = self._batch.lists(
                histories, users_BD, k=min(k, self.num_items), allowed=allowed, run_limit=self.run_limit
            )
        lists = []
        for row, one in enumerate(found):
            if one is None:
                alone = self.rank_known(
                    histories.rows(slice(row, row + 1)),
                    users_BD[row],
                    k=k,
                    include_seen=include_seen,
                    allowed=allowed,
                    rules=rules,
                    with_reasons=False,
                )
                one = alone.items.tolist(), shown(alone.scores)
            lists.append(one)
        return lists

    @cached_property
    def _batch(self) -> BatchRetrieval:
        return BatchRetrieval(self.tables)  # made by the first batch: many a worker never sees one

    def _scratch(self) -> tuple[Floats, Slots, Bools]:
        """This thread's own; new ones for every request would cost more than what is added up in them."""
        found: tuple[Floats, Slots, Bools] | None = getattr(self._local, "scratch", None)
        if found is None:
            size = self.num_items
            found = (np.zeros(size, np.float32), np.zeros(size, np.int32), np.zeros(size, np.bool_))
            self._local.scratch = found
        return found


class _Candidates:
    """What one user's list is chosen from. The run is scored once, and lengthened where more is asked for."""

    def __init__(
        self, tables: TermTables, user: UserTerms, *, allowed: npt.NDArray[np.bool_] | None, run_limit: int | None
    ) -> None:
        self._tables, self._user, self._run_limit = tables, user, run_limit
        self._allowed_P = None if allowed is None else allowed[tables.order_P]
        self._places_C = user.filter.places_C
        self._partial_C = tables.partial_led_to(user)
        if user.repeat_N is None:
            self._partial_C[user.own_N] = -np.inf
        if self._allowed_P is not None:
            self._partial_C[~self._allowed_P[self._places_C]] = -np.inf
        # Of what the history leads to, those whose similarity is known: their positions and scores.
        self._is_known_C = self._partial_C == -np.inf  # what may not be listed need not be known
        self._known: Ints = np.zeros(0, np.int64)
        self._total_known: Floats = np.zeros(0, np.float32)
        self._reach_similarity, self._reach_affinities = tables.reach(user)
        self._run: Floats = np.zeros(0, np.float32)

    @property
    def num_scored(self) -> int:
        return len(self._run) + len(self._known)

    def best(self, k: int) -> tuple[Ints, Floats]:
        """Items and scores of the k best."""
        most = min(4 * k, len(self._partial_C))
        if most:
            self._complete(np.argpartition(self._partial_C, len(self._partial_C) - most)[len(self._partial_C) - most :])
        self._lengthen(4 * k)
        floor = self._floor(k)
        self._complete(np.flatnonzero(self._partial_C >= np.float32(_lowered(floor, self._reach_similarity))))
        needed = self._tables.run_above(_lowered(self._floor(k), self._reach_similarity + self._reach_affinities))
        if self._run_limit is not None and needed > self._run_limit:
            self._lengthen(self._run_limit)
            needed = needed if self._floor(k) == -np.inf else 0
        self._lengthen(needed)
        return best_of(np.concatenate([self._run, self._total_known]), self._items_at, k=k)

    def _complete(self, at: Ints) -> None:
        """Add the similarity of some of what the history leads to."""
        at = at[~self._is_known_C[at]]
        if len(at):
            self._is_known_C[at] = True
            total = self._partial_C[at] + self._tables.similarity(self._user, self._places_C[at])
            self._known = np.concatenate([self._known, at])
            self._total_known = np.concatenate([self._total_known, total])

    def _floor(self, k: int) -> float:
        """The k-th best of what is scored; -inf where that is fewer."""
        values = np.concatenate([self._run, self._total_known])
        return float(np.partition(values, len(values) - k)[len(values) - k]) if len(values) >= k else -np.inf

    def _lengthen(self, length: int) -> None:
        first, length = len(self._run), min(length, self._tables.num_items)
        if length <= first:
            return
        total = self._tables.score_run(self._user, first, length)
        inside = slice(*np.searchsorted(self._places_C, [first, length]).tolist())
        total[self._places_C[inside] - first] = -np.inf  # scored already, with what the history adds
        if self._allowed_P is not None:
            total[~self._allowed_P[first:length]] = -np.inf
        self._run = np.concatenate([self._run, total]) if first else total

    def _items_at(self, at: Ints) -> Ints:
        """The items of some places among run and history's."""
        split = len(self._run)
        is_led_to = at >= split
        places = at.copy()
        places[is_led_to] = self._places_C[self._known[at[is_led_to] - split]]
        return self._tables.order_P[places]


def best_of(total_C: Floats, items_at: Callable[[Ints], Ints], *, k: int) -> tuple[Ints, Floats]:
    """Items and scores of the k best, best first, equal ones by item; -inf is never listed.

    Maxima of groups are looked at first: only a group whose maximum is among the k largest can hold one of the k best,
    so the scores are read once and few of them are ever compared.

    Args:
        items_at: the items of some places in `total_C`.
    """
    num_groups = len(total_C) // _GROUP
    if num_groups <= k:
        at = np.arange(len(total_C))
    else:
        split = num_groups * _GROUP
        maxima_G = total_C[:split].reshape(_GROUP, num_groups).max(axis=0)
        least = np.partition(maxima_G, num_groups - k)[num_groups - k]
        groups = np.flatnonzero(maxima_G >= least)
        at = np.concatenate(
            [(groups + np.arange(0, split, num_groups)[:, None]).ravel(), np.arange(split, len(total_C))]
        )
        at = at[total_C[at] >= least]
    values = total_C[at]
    at, values = at[values > -np.inf], values[values > -np.inf]
    items = items_at(at)
    order = np.lexsort((items, -values))[:k]
    return items[order], values[order]


def _ruled(
    best: Callable[[int], tuple[Ints, Floats]], *, k: int, rules: ListRules, num_items: int
) -> tuple[Ints, Floats]:
    if not rules:
        return best(k)

    def rank(width: int) -> tuple[Tensor, Tensor]:
        items, values = best(width)
        row_k, value_k = torch.full((1, width), NO_ITEM), torch.full((1, width), -torch.inf)
        row_k[0, : len(items)], value_k[0, : len(items)] = torch.from_numpy(items), torch.from_numpy(values)
        return row_k, value_k

    items_1k, values_1k = rules.ranked(rank, k=k, num_items=num_items)
    kept = items_1k[0] != NO_ITEM
    return items_1k[0][kept].numpy(), values_1k[0][kept].numpy()
