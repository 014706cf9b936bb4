"""What is known of the one who asks: online features, what they did since, what the request tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.model.histories import Histories
from serving.fresh import FreshEvent
from serving.item_rows import Ints, ItemRows
from serving.online import Floats, OnlineUser
from serving.schemas import RecentItem, Source

DAY_SECONDS = 86_400.0


class Facts(NamedTuple):
    """What an answer says of where it comes from."""

    source: Source
    feature_age_seconds: float | None
    fresh_events: int
    unknown_items: Sequence[str]


class Known(NamedTuple):
    """One user's history, most recent item first, as rows of the bundle."""

    items: list[int] | Ints
    weights: list[float] | Floats
    ages_days: list[float] | Floats
    statistics: Mapping[str, float]
    facts: Facts


def know(
    asked: Sequence[str | RecentItem],
    user: OnlineUser | None,
    fresh: Sequence[FreshEvent],
    *,
    rows: ItemRows,
    now: datetime,
    max_history: int,
) -> Known:
    """Join the three: an item's weights are added, its youngest age counts.

    A fresh event from before the features' own moment is in them already and is left out.
    """
    if user is not None and not asked and not fresh and (plain := _online_alone(user, rows)) is not None:
        items, weights, ages = plain
        return Known(
            items=items[:max_history],
            weights=weights[:max_history],
            ages_days=ages[:max_history],
            statistics=user.statistics,
            facts=Facts("online_store", user.age_seconds, 0, ()),
        )
    weight_of: dict[int, float] = {}
    age_of: dict[int, float] = {}
    unknown: list[str] = []

    def add(item_id: str, weight: float, age_days: float) -> bool:
        row = rows.index.get(item_id)
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
        for item_id, weight, age_days in zip(user.items, _list(user.weights), _list(user.ages_days), strict=True):
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
        facts=Facts(
            source=_source(is_online=is_online, is_fresh=num_fresh > 0, is_asked=is_asked),
            feature_age_seconds=user.age_seconds if user is not None and is_online else None,
            fresh_events=num_fresh,
            unknown_items=unknown,
        ),
    )


def _online_alone(user: OnlineUser, rows: ItemRows) -> tuple[Ints, Floats, Floats] | None:
    """Most requests: the stored history as it is, where it needs no joining. A tenth of what joining costs."""
    if not len(user.items):
        return None
    items_N = rows.of_ids(user.items)
    rising_N = np.sort(items_N)
    ages_N = np.asarray(user.ages_days, np.float32)
    is_odd = rising_N[0] < 0 or (rising_N[1:] == rising_N[:-1]).any() or ages_N[0] < 0
    if is_odd or (ages_N[1:] < ages_N[:-1]).any():
        return None
    return items_N, np.asarray(user.weights, np.float32), ages_N


def histories_of(known: Sequence[Known]) -> Histories:
    """One row a user."""
    lengths = np.fromiter((len(one.items) for one in known), np.int64, len(known))
    return Histories(
        indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        items=torch.from_numpy(_joined([one.items for one in known], np.int64)),
        weights=torch.from_numpy(_joined([one.weights for one in known], np.float32)),
        ages_days=torch.from_numpy(_joined([one.ages_days for one in known], np.float32)),
    )


def statistics_of(known: Sequence[Known], names: Sequence[str]) -> Tensor:
    """(B, F) float32, nan where unknown."""
    rows = [[one.statistics.get(name, math.nan) for name in names] for one in known]
    return torch.from_numpy(np.array(rows, np.float32).reshape(len(known), len(names)))


def _joined(parts: Sequence[Sequence[float] | npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    if len(parts) == 1:
        return np.array(parts[0], dtype)
    return np.concatenate([np.asarray(part, dtype) for part in parts])


def _list(values: Sequence[float] | Floats) -> list[float]:
    found: list[float] = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return found


def _source(*, is_online: bool, is_fresh: bool, is_asked: bool) -> Source:
    if is_online or is_fresh:
        if is_asked:
            return "both"
        return "online_store" if is_online else "events"
    return "request" if is_asked else "popularity"
