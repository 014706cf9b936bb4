"""From a request to a ranked list with reasons. Pure: a bundle, an online user and a request in, an answer out.

Shapes: I items of the bundle; B is 1, one user a request.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
import torch
from torch import Tensor

from components.model.bundle import Bundle
from components.model.explain import explain_from_terms, similar
from components.model.histories import Histories
from components.model.rules import ruled_top_k
from components.model.score import REPEAT
from serving.errors import RequestError, UnknownItemError
from serving.fresh import FreshEvent
from serving.known import Known, histories_of, know, statistics_of
from serving.lists import Exploration, Filters, ListStatistics, Ranked, as_ranked, rank
from serving.online import OnlineUser
from serving.schemas import (
    BatchRequest,
    HistoryAnswer,
    HistoryItem,
    Item,
    ListConditions,
    ModelAnswer,
    RecommendAnswer,
    RecommendedItem,
    RecommendRequest,
    SearchAnswer,
    SimilarAnswer,
    SimilarItem,
    SimilarRequest,
)

NO_EXPLORATION = Exploration()
# Users times items scored at once: a matrix of 16 MB, of which the terms need a handful.
SCORES_AT_ONCE = 4_000_000


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
        self._search_texts = [
            f"{items.display(index)}\n{item_id}".casefold() for index, item_id in enumerate(items.item_ids)
        ]
        self.lists = ListStatistics(bundle)

    @torch.inference_mode()
    def recommend(
        self,
        request: RecommendRequest,
        user: OnlineUser | None,
        *,
        fresh: Sequence[FreshEvent] = (),
        degraded: Sequence[str] = (),
        list_id: str | None = None,
    ) -> RecommendAnswer:
        """`user` is what the online store knows; None for a stranger or when the store is down. `fresh` is what they
        did since. The same `list_id` draws the same list where lists are explored; None: a new one."""
        self._check(request)
        if len(request.items) > self.max_history:
            raise RequestError(f"'items' may have at most {self.max_history} entries.")
        known = know(
            request.items,
            user,
            fresh,
            index=self.bundle.items.index,
            now=self.clock(),
            max_history=self.max_history,
        )
        histories = histories_of([known])
        # The terms once: their sum is the score, and the reasons are read from them.
        terms = self.bundle.scorer.terms(
            histories, statistics_of([known], self.bundle.statistics_names), include_seen=request.include_seen
        )
        scores = torch.stack([term.expand(1, -1) for term in terms.values()]).sum(dim=0)
        list_id = list_id or new_list_id()
        ranked = rank(
            self.bundle,
            scores,
            request,
            histories=None if request.include_seen else histories,
            allowed=self.filters.allowed(request),
            exploration=self.exploration,
            seed=int(list_id, 16),
        )
        return self._answer(known, ranked, list_id, degraded, histories, terms if request.reasons else None)

    @torch.inference_mode()
    def recommend_many(
        self,
        request: BatchRequest,
        users: Sequence[OnlineUser | None],
        *,
        fresh: Sequence[Sequence[FreshEvent]],
        degraded: Sequence[str] = (),
    ) -> list[RecommendAnswer]:
        """The lists of many users: what `recommend` answers for each, scored as matrices of bounded size."""
        self._check(request)
        allowed = self.filters.allowed(request)
        now, index = self.clock(), self.bundle.items.index
        known = [
            know((), user, events, index=index, now=now, max_history=self.max_history)
            for user, events in zip(users, fresh, strict=True)
        ]
        rows = max(1, SCORES_AT_ONCE // max(len(self.bundle.items), 1))
        answers: list[RecommendAnswer] = []
        for start in range(0, len(known), rows):
            answers.extend(self._many(request, known[start : start + rows], allowed, degraded))
        return answers

    def _many(
        self, request: BatchRequest, known: Sequence[Known], allowed: Tensor | None, degraded: Sequence[str]
    ) -> Iterator[RecommendAnswer]:
        histories = histories_of(known)
        statistics = statistics_of(known, self.bundle.statistics_names)
        terms: dict[str, Tensor] | None = None
        if request.reasons:
            terms = self.bundle.scorer.terms(histories, statistics, include_seen=request.include_seen)
            scores = torch.stack([term.expand(len(known), -1) for term in terms.values()]).sum(dim=0)
        else:
            scores = self.bundle.scorer.score(histories, statistics, include_seen=request.include_seen)
        left_out = None if request.include_seen else histories
        ids = [new_list_id() for _ in known]
        if request.diversity or self.exploration.share:
            ranked = [
                rank(
                    self.bundle,
                    scores[row : row + 1],
                    request,
                    histories=None if left_out is None else left_out.rows(slice(row, row + 1)),
                    allowed=allowed,
                    exploration=self.exploration,
                    seed=int(list_id, 16),
                )
                for row, list_id in enumerate(ids)
            ]
        else:
            k = min(request.k, scores.shape[1])
            found = ruled_top_k(scores, self.bundle.rules, k=k, histories=left_out, allowed=allowed)
            ranked = [as_ranked(*row) for row in zip(*found, strict=True)]
        for row, (one, list_id) in enumerate(zip(ranked, ids, strict=True)):
            only = slice(row, row + 1)
            own = {name: term if len(term) == 1 else term[only] for name, term in terms.items()} if terms else None
            yield self._answer(known[row], one, list_id, degraded, histories.rows(only) if own else histories, own)

    def _answer(
        self,
        known: Known,
        ranked: Ranked,
        list_id: str,
        degraded: Sequence[str],
        histories: Histories,
        terms: dict[str, Tensor] | None,
    ) -> RecommendAnswer:
        """`terms` and `histories` of this one user; None: no reasons."""
        return RecommendAnswer(
            list_id=list_id,
            items=[
                self._item_of_list(index, score, None if terms is None else (histories, terms))
                for index, score in zip(ranked.items, ranked.scores, strict=True)
            ],
            bundle=self.bundle.sha256,
            source=known.source,
            propensity=ranked.propensity,
            fresh_events=known.fresh_events,
            feature_age_seconds=known.feature_age_seconds,
            unknown_items=known.unknown_items,
            degraded=list(degraded),
        )

    @torch.inference_mode()
    def similar(self, request: SimilarRequest) -> SimilarAnswer:
        self._check_length(request.k)
        index = self._index(request.item_id)
        found = similar(self.bundle, index, k=request.k)
        return SimilarAnswer(
            item=self._item(index),
            items=[SimilarItem(score=score, **self._item(other).model_dump()) for other, score in found],
            bundle=self.bundle.sha256,
        )

    def history(self, user: OnlineUser) -> HistoryAnswer:
        """A user's history with names, most recent first; items that left the catalogue are named by their id."""
        rows = zip(user.items, user.weights, user.ages_days, strict=True)
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
        return SearchAnswer(items=[self._item(index) for index in hits[:limit]])

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

    def _item_of_list(
        self, index: int, score: float, why: tuple[Histories, dict[str, Tensor]] | None
    ) -> RecommendedItem:
        reasons: list[str] = []
        shares: dict[str, float] = {}
        if why is not None:
            explanation = explain_from_terms(self.bundle, *why, index)
            reasons = [explanation.sentence] if explanation.sentence else []
            shares = {name: float(share) for name, share in explanation.shares.items()}
        return RecommendedItem(score=score, reasons=reasons, shares=shares, **self._item(index).model_dump())

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
        return self._item(index)

    def _item(self, index: int) -> Item:
        items = self.bundle.items
        return Item(
            item_id=items.item_ids[index],
            title=items.display(index),
            category=items.categories[index],
            brand=items.brands[index],
            price=_finite(items.prices[index]),
        )


def new_list_id() -> str:
    """128 random bits as 32 hex digits."""
    return os.urandom(16).hex()


def _finite(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    # float32 prices would be shown as 2.990000009536743
    return round(float(value), 6)
