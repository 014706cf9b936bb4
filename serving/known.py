"""What is known of the one who asks: online features, what they did since, what the request tells."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import torch
from torch import Tensor

from components.model.histories import Histories
from serving.fresh import FreshEvent
from serving.online import OnlineUser
from serving.schemas import RecentItem, Source

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Known:
    """One user's history, most recent item first, as rows of the bundle."""

    items: list[int]
    weights: list[float]
    ages_days: list[float]
    statistics: Mapping[str, float]
    source: Source
    feature_age_seconds: float | None
    fresh_events: int
    unknown_items: list[str]


def know(
    asked: Sequence[str | RecentItem],
    user: OnlineUser | None,
    fresh: Sequence[FreshEvent],
    *,
    index: Mapping[str, int],
    now: datetime,
    max_history: int,
) -> Known:
    """Join the three: an item's weights are added, its youngest age counts.

    A fresh event from before the features' own moment is in them already and is left out.
    """
    if user is not None and not asked and not fresh and (plain := _online_alone(user, index)) is not None:
        items, weights, ages = plain
        return Known(
            items=items[:max_history],
            weights=weights[:max_history],
            ages_days=ages[:max_history],
            statistics=user.statistics,
            source="online_store",
            feature_age_seconds=user.age_seconds,
            fresh_events=0,
            unknown_items=[],
        )
    weight_of: dict[int, float] = {}
    age_of: dict[int, float] = {}
    unknown: list[str] = []

    def add(item_id: str, weight: float, age_days: float) -> bool:
        row = index.get(item_id)
        if row is None:
            return False
        weight_of[row] = weight_of.get(row, 0.0) + weight
        age_of[row] = min(age_of.get(row, math.inf), age_days)
        return True

    is_asked = is_online = False
    for entry in asked:
        recent = entry if isinstance(entry, RecentItem) else RecentItem(item_id=entry)
        if add(recent.item_id, recent.weight, recent.age_days):
            is_asked = True
        elif recent.item_id not in unknown:
            unknown.append(recent.item_id)
    if user is not None:
        for item_id, weight, age_days in zip(user.items, user.weights, user.ages_days, strict=True):
            is_online |= add(item_id, weight, max(age_days, 0.0))
    num_fresh = 0
    if fresh:
        now_seconds = now.timestamp()
        known_until = -math.inf if user is None else user.known_until(now).timestamp()
        for event in fresh:
            if event.seconds >= known_until and event.weight > 0:
                age_days = max(now_seconds - event.seconds, 0.0) / DAY_SECONDS
                num_fresh += add(event.item_id, event.weight, age_days)

    kept = sorted(weight_of, key=lambda row: age_of[row])[:max_history]
    return Known(
        items=kept,
        weights=[weight_of[row] for row in kept],
        ages_days=[age_of[row] for row in kept],
        statistics=user.statistics if user is not None else {},
        source=_source(is_online=is_online, is_fresh=num_fresh > 0, is_asked=is_asked),
        feature_age_seconds=user.age_seconds if user is not None and is_online else None,
        fresh_events=num_fresh,
        unknown_items=unknown,
    )


def _online_alone(user: OnlineUser, index: Mapping[str, int]) -> tuple[list[int], list[float], list[float]] | None:
    """Most requests: the stored history as it is, where it needs no joining. A tenth of what joining costs."""
    rows = [index.get(item_id) for item_id in user.items]
    ages = list(user.ages_days)
    if not rows or len(set(rows)) < len(rows) or ages[0] < 0:
        return None
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or any(map(operator.gt, ages, ages[1:])):
        return None
    return known, list(user.weights), ages


def histories_of(known: Sequence[Known]) -> Histories:
    """One row a user."""
    return Histories.from_lists(
        [one.items for one in known], [one.weights for one in known], [one.ages_days for one in known]
    )


def statistics_of(known: Sequence[Known], names: Sequence[str]) -> Tensor:
    """(B, F) float32, nan where unknown."""
    rows = [[float(one.statistics.get(name, math.nan)) for name in names] for one in known]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(known), len(names))


def _source(*, is_online: bool, is_fresh: bool, is_asked: bool) -> Source:
    if is_online or is_fresh:
        if is_asked:
            return "both"
        return "online_store" if is_online else "events"
    return "request" if is_asked else "popularity"
