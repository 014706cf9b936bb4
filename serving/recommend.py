"""From a request to a ranked list with reasons. Pure: a bundle, an online user and a request in, an answer out.

Shapes: I items of the bundle; B is 1, one user a request.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from components.model.bundle import Bundle, ItemTable
from components.model.explain import Reasons, explain_listed, similar
from components.model.histories import Histories
from components.model.retrieval import Ranked as Retrieved
from components.model.retrieval import Retrieval
from components.model.rules import ListRules
from components.model.score import REPEAT
from serving.errors import RequestError, UnknownItemError
from serving.fresh import FreshEvent
from serving.item_rows import ItemRows
from serving.known import histories_of, know, statistics_of
from serving.known_many import know_many
from serving.lists import Exploration, Filters, ListStatistics, Ranked, rank
from serving.online import OnlineUser
from serving.schemas import (
    BatchRequest,
    HistoryAnswer,
    HistoryItem,
    Item,
    ListConditions,
    ModelAnswer,
    RecommendRequest,
    SearchAnswer,
    SimilarAnswer,
    SimilarItem,
    SimilarRequest,
)
from serving.written import Writer, Written

NO_EXPLORATION = Exploration()
COLLECTED_AFTER = 20_000  # objects that were made and not freed yet


class Recommender:
    """One bundle, ready to answer. Immutable: a hot swap replaces the whole object."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        clock: Callable[[], datetime],
        max_k: int,
        max_history: int,
        exploration: Exploration = NO_EXPLORATION,
    ) -> None:
        self.bundle = bundle
        self.clock = clock  # 'now' for the age of histories
        self.max_k = max_k
        self.max_history = max_history
        self.exploration = exploration
        items = bundle.items
        self.filters = Filters(bundle)
        self.retrieval = Retrieval(bundle.scorer, run_limit=bundle.run_limit)
        self.lists = ListStatistics(bundle)
        self._rows = ItemRows(items.index)
        self.writer = Writer(items.item_ids, partial(item_of, items), bundle=bundle.sha256)

    @torch.inference_mode()
    def recommend(
        self,
        request: RecommendRequest,
        user: OnlineUser | None,
        *,
        fresh: Sequence[FreshEvent] = (),
        degraded: Sequence[str] = (),
        list_id: str | None = None,
    ) -> Written:
        """`user` is what the online store knows; None for a stranger or when the store is down. `fresh` is what they
        did since. The same `list_id` draws the same list where lists are explored; None: a new one."""
        self._check(request)
        if len(request.items) > self.max_history:
            raise RequestError(f"'items' may have at most {self.max_history} entries.")
        known = know(
            request.items,
            user,
            fresh,
            rows=self._rows,
            now=self.clock(),
            max_history=self.max_history,
        )
        list_id = list_id or new_list_id()
        allowed = self.filters.allowed(request)
        histories = histories_of([known])
        user_D = self.retrieval.user_vectors(histories, statistics_of([known], self.bundle.statistics_names))[0]
        ranked, found = self._ranked(histories, user_D, request, None if allowed is None else allowed.numpy(), list_id)
        return self.writer.written(known.facts, ranked, list_id, degraded, found)

    @torch.inference_mode()
    def recommend_many(
        self,
        request: BatchRequest,
        users: Sequence[OnlineUser | None],
        *,
        fresh: Sequence[Sequence[FreshEvent]],
        degraded: Sequence[str] = (),
    ) -> list[Written]:
        """The lists of many users: what `recommend` answers for each, ranked and written together.

        Together as long as lists are plain: reasons, diversity and exploration look at each user's list by itself."""
        self._check(request)
        allowed = self.filters.allowed(request)
        histories, statistics_BF, facts = know_many(
            users,
            fresh,
            rows=self._rows,
            now=self.clock(),
            max_history=self.max_history,
            statistics=self.bundle.statistics_names,
        )
        allowed_I = None if allowed is None else allowed.numpy()
        users_BD = self.retrieval.user_vectors(histories, statistics_BF)
        list_ids = new_list_ids(len(facts))
        if request.reasons or request.diversity or self.exploration.share:
            answers = []
            for row, (one, list_id) in enumerate(zip(facts, list_ids, strict=True)):
                alone = histories.rows(slice(row, row + 1))
                ranked, found = self._ranked(alone, users_BD[row], request, allowed_I, list_id)
                answers.append(self.writer.written(one, ranked, list_id, degraded, found))
            return answers
        lists = self.retrieval.rank_many(
            histories,
            users_BD,
            k=request.k,
            include_seen=request.include_seen,
            allowed=allowed_I,
            rules=self.bundle.rules,
        )
        return [
            self.writer.written(one, Ranked(items, scores), list_id, degraded)
            for one, (items, scores), list_id in zip(facts, lists, list_ids, strict=True)
        ]

    def _ranked(
        self,
        histories: Histories,
        user_D: npt.NDArray[np.float32],
        request: RecommendRequest | BatchRequest,
        allowed_I: npt.NDArray[np.bool_] | None,
        list_id: str,
    ) -> tuple[Ranked, Reasons | None]:
        """The list of one user, and why each of its items is there, where that is asked for."""

        def best(k: int, rules: ListRules) -> Retrieved:
            return self.retrieval.rank_known(
                histories,
                user_D,
                k=k,
                include_seen=request.include_seen,
                allowed=allowed_I,
                rules=rules,
                with_reasons=request.reasons,
            )

        ranked, found = rank(self.bundle, best, request, exploration=self.exploration, seed=int(list_id, 16))
        return ranked, explain_listed(self.bundle, found) if request.reasons else None

    @torch.inference_mode()
    def similar(self, request: SimilarRequest) -> SimilarAnswer:
        self._check_length(request.k)
        index = self._index(request.item_id)
        found = similar(self.bundle, index, k=request.k)
        items = self.bundle.items
        return SimilarAnswer(
            item=item_of(items, index),
            items=[SimilarItem(score=score, **item_of(items, other).model_dump()) for other, score in found],
            bundle=self.bundle.sha256,
        )

    def history(self, user: OnlineUser) -> HistoryAnswer:
        """A user's history with names, most recent first; items that left the catalogue are named by their id."""
        rows = zip(user.items, np.asarray(user.weights).tolist(), np.asarray(user.ages_days).tolist(), strict=True)
        return HistoryAnswer(
            items=[
                HistoryItem(weight=weight, age_days=age, **self._named(item_id).model_dump())
                for item_id, weight, age in sorted(rows, key=lambda row: row[2])
            ],
            statistics={name: _finite(value) for name, value in user.statistics.items()},
            feature_age_seconds=user.age_seconds,
        )

    def search(self, text: str, *, limit: int) -> SearchAnswer:
        """Items whose title or id holds every word of `text`, the most popular first."""
        words = text.casefold().split()
        hits = [index for index, hay in enumerate(self._search_texts) if all(word in hay for word in words)]
        popularity_I = np.asarray(self.bundle.items.popularity)
        hits.sort(key=lambda index: (-int(popularity_I[index]), index))
        return SearchAnswer(items=[item_of(self.bundle.items, index) for index in hits[:limit]])

    @cached_property
    def _search_texts(self) -> list[str]:
        # Made by the first search: it would be a quarter of what loading a bundle takes, and only people search.
        items = self.bundle.items
        return [f"{items.display(index)}\n{item_id}".casefold() for index, item_id in enumerate(items.item_ids)]

    def describe(self, *, loaded_at: datetime | None, roles: Sequence[str], stage: str) -> ModelAnswer:
        bundle, weights = self.bundle, self.bundle.scorer.weights
        return ModelAnswer(
            bundle=bundle.sha256,
            format_version=bundle.format_version,
            run_id=bundle.run_id,
            cutoff=bundle.cutoff.isoformat(),
            as_of=bundle.as_of.isoformat(),
            clock=self.clock().isoformat(),
            items=len(bundle.items.item_ids),
            roles=sorted(roles),
            stage=stage,
            terms={**weights.terms, REPEAT: weights.repeat},
            categories=self.filters.categories,
            loaded_at=loaded_at.isoformat() if loaded_at else None,
        )

    def warm_up(self) -> None:
        """Score one synthetic request, so that the first caller does not pay for lazy set-up."""
        first = self.bundle.items.item_ids[0]
        self.recommend(RecommendRequest(items=[first], k=1), None)
        settle_memory()

    def _check(self, request: ListConditions) -> None:
        self._check_length(request.k)
        if request.price_min is not None and request.price_max is not None and request.price_min > request.price_max:
            raise RequestError("'price_min' may not be more than 'price_max'.")

    def _check_length(self, k: int) -> None:
        if k > self.max_k:
            raise RequestError(f"'k' may be at most {self.max_k}.")

    def _index(self, item_id: str) -> int:
        index: int | None = self.bundle.items.index.get(item_id)
        if index is None:
            raise UnknownItemError(f"This bundle has no item '{item_id}'.")
        return index

    def _named(self, item_id: str) -> Item:
        index = self.bundle.items.index.get(item_id)
        if index is None:
            return Item(item_id=item_id, title=item_id, category=None, brand=None, price=None)
        return item_of(self.bundle.items, index)


def item_of(items: ItemTable, index: int) -> Item:
    return Item.model_construct(**_fields(items, index))


def _fields(items: ItemTable, index: int) -> dict[str, Any]:
    """Of an `Item`."""
    return {
        "item_id": items.item_ids[index],
        "title": items.display(index),
        "category": items.categories[index],
        "brand": items.brands[index],
        "price": _finite(items.prices[index]),
    }


def new_list_id() -> str:
    return new_list_ids(1)[0]


def new_list_ids(count: int) -> list[str]:
    """128 random bits as 32 hex digits, each."""
    digits = os.urandom(16 * count).hex()
    return [digits[start : start + 32] for start in range(0, 32 * count, 32)]


def settle_memory() -> None:
    """Return to the system what loading a bundle took for a while: the C library and Arrow would keep it.

    And let no later collection go through what stays, the bundle and every module, which stops all requests for tenths
    of a second. What is in no cycle is freed all the same: a bundle that nobody holds any more. Answers make no cycles,
    so they are looked for seldom; by Python's own measure it would be many times in one batch.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER)
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc has no such call
        ctypes.CDLL(None).malloc_trim(0)


def _finite(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    # float32 prices would be shown as 2.990000009536743
    return round(float(value), 6)
