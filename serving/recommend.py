"""From a request to a ranked list with reasons. Pure: a bundle, an online user and a request in, an answer out.

Shapes: I items of the bundle; B is 1, one user a request.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from serving.online import OnlineUser
from serving.schemas import (
    HistoryAnswer,
    HistoryItem,
    Item,
    ModelAnswer,
    RecentItem,
    RecommendAnswer,
    RecommendedItem,
    RecommendRequest,
    SearchAnswer,
    SimilarAnswer,
    SimilarItem,
    SimilarRequest,
    Source,
)


@dataclass(frozen=True)
class Known:
    """What is known of the one who asks."""

    histories: Histories  # B = 1
    statistics: Tensor  # (1, F), nan where unknown
    source: Source
    feature_age_seconds: float | None
    unknown_items: list[str]


class Recommender:
    """One bundle, ready to answer. Immutable: a hot swap replaces the whole object."""

    def __init__(self, bundle: Bundle, *, clock: Callable[[], datetime], max_k: int, max_history: int) -> None:
        self.bundle = bundle
        self.clock = clock  # 'now' for the age of histories
        self.max_k = max_k
        self.max_history = max_history
        items = bundle.items
        self.categories = sorted({name for name in items.categories if name is not None})
        code_of = {name: code for code, name in enumerate(self.categories)}
        self._category_code = code_of
        self._category_I = torch.tensor(
            [-1 if name is None else code_of[name] for name in items.categories], dtype=torch.int32
        )
        self._search_texts = [
            f"{items.display(index)}\n{item_id}".casefold() for index, item_id in enumerate(items.item_ids)
        ]

    @torch.inference_mode()
    def recommend(
        self, request: RecommendRequest, user: OnlineUser | None, *, degraded: Sequence[str] = ()
    ) -> RecommendAnswer:
        """`user` is what the online store knows; None for a stranger or when the store is down."""
        self._check_length(request.k)
        if len(request.items) > self.max_history:
            raise RequestError(f"'items' may have at most {self.max_history} entries.")
        known = self._know(request.items, user)
        # The terms once: their sum is the score, and the reasons are read from them.
        terms = self.bundle.scorer.terms(known.histories, known.statistics, include_seen=request.include_seen)
        scores = torch.stack([term.expand(1, -1) for term in terms.values()]).sum(dim=0)
        items, values = ruled_top_k(
            scores,
            self.bundle.rules,
            k=min(request.k, len(self.bundle.items.item_ids)),
            histories=None if request.include_seen else known.histories,
            allowed=self._allowed(request),
        )
        return RecommendAnswer(
            items=[
                self._explained(known, terms, index, value)
                for index, value in zip(items[0].tolist(), values[0].tolist(), strict=True)
                if index >= 0
            ],
            bundle=self.bundle.sha256,
            source=known.source,
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

    def describe(self, *, loaded_at: datetime | None) -> ModelAnswer:
        bundle, weights = self.bundle, self.bundle.scorer.weights
        return ModelAnswer(
            bundle=bundle.sha256,
            format_version=bundle.format_version,
            run_id=bundle.run_id,
            cutoff=bundle.cutoff.isoformat(),
            as_of=bundle.as_of.isoformat(),
            clock=self.clock().isoformat(),
            items=len(bundle.items.item_ids),
            terms={**weights.terms, REPEAT: weights.repeat},
            categories=self.categories,
            loaded_at=loaded_at.isoformat() if loaded_at else None,
        )

    def warm_up(self) -> None:
        """Score one synthetic request, so that the first caller does not pay for lazy set-up."""
        first = self.bundle.items.item_ids[0]
        self.recommend(RecommendRequest(items=[first], k=1), None)

    def _know(self, asked: Sequence[str | RecentItem], user: OnlineUser | None) -> Known:
        index_of = self.bundle.items.index
        weight_of: dict[int, float] = {}
        age_of: dict[int, float] = {}
        unknown: list[str] = []

        def add(item_id: str, weight: float, age_days: float) -> bool:
            index = index_of.get(item_id)
            if index is None:
                return False
            weight_of[index] = weight_of.get(index, 0.0) + weight
            age_of[index] = min(age_of.get(index, math.inf), age_days)
            return True

        is_asked = False
        for entry in asked:
            recent = entry if isinstance(entry, RecentItem) else RecentItem(item_id=entry)
            if add(recent.item_id, recent.weight, recent.age_days):
                is_asked = True
            elif recent.item_id not in unknown:
                unknown.append(recent.item_id)
        is_online = False
        if user is not None:
            for item_id, weight, age_days in zip(user.items, user.weights, user.ages_days, strict=True):
                is_online |= add(item_id, weight, max(age_days, 0.0))

        kept = sorted(weight_of, key=lambda index: age_of[index])[: self.max_history]
        statistics = user.statistics if user is not None else {}
        return Known(
            histories=Histories.from_lists([kept], [[weight_of[i] for i in kept]], [[age_of[i] for i in kept]]),
            statistics=torch.tensor(
                [[float(statistics.get(name, math.nan)) for name in self.bundle.statistics_names]], dtype=torch.float32
            ),
            source=_source(is_online=is_online, is_asked=is_asked),
            feature_age_seconds=user.age_seconds if user is not None and is_online else None,
            unknown_items=unknown,
        )

    def _allowed(self, request: RecommendRequest) -> Tensor | None:
        """(I,) bool, or None where everything is allowed."""
        if request.category is None and not request.exclude:
            return None
        allowed_I = torch.ones(len(self._category_I), dtype=torch.bool)
        if request.category is not None:
            code = self._category_code.get(request.category)
            if code is None:
                near = difflib.get_close_matches(request.category, self.categories, n=1, cutoff=0.5)
                hint = f" Did you mean '{near[0]}'?" if near else " GET /model lists them."
                raise RequestError(f"No item has the category '{request.category}'.{hint}")
            allowed_I = self._category_I == code
        excluded = [index for item_id in request.exclude if (index := self.bundle.items.index.get(item_id)) is not None]
        allowed_I[excluded] = False
        return allowed_I

    def _explained(self, known: Known, terms: dict[str, Tensor], index: int, score: float) -> RecommendedItem:
        explanation = explain_from_terms(self.bundle, known.histories, terms, index)
        return RecommendedItem(
            score=score,
            reasons=[explanation.sentence] if explanation.sentence else [],
            shares={name: float(share) for name, share in explanation.shares.items()},
            **self._item(index).model_dump(),
        )

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


def _source(*, is_online: bool, is_asked: bool) -> Source:
    if is_online:
        return "both" if is_asked else "online_store"
    return "request" if is_asked else "popularity"


def _finite(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    # float32 prices would be shown as 2.990000009536743
    return round(float(value), 6)
