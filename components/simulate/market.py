"""What the shop offers on a day: which items are there, how they rank within their topic, and at what price.

Shoppers pick a *rank* by a power law and take the item that holds it today. So popularity follows a power law every
day, and trends, novelty, promotions and drift are changes of the ranking. I: items, T: topics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.simulate.catalog import Catalog
from components.simulate.settings import WorldSettings
from components.simulate.streams import Stream, generator

# P(rank r) falls as r^-(1 + 1/RANK_ROOT) = r^-1.125; a root of 8 makes drawing a rank three squarings and a division.
RANK_ROOT = 8
NOVELTY_BOOST = 1.2
NOVELTY_DAYS = 10.0
PROMOTED_SHARE = 0.05
PROMOTION_DAYS = 7
PROMOTION_DISCOUNT = 0.2
DAYS_OF_YEAR = 365.25


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """One day's offer."""

    order: np.ndarray
    """(I,) items sorted by topic, then from the most wanted to the least; those not yet there stand last."""
    bestsellers: np.ndarray
    """Items that are there, from the most wanted of the whole shop to the least."""
    offset: np.ndarray
    """(T,) where a topic begins in `order`."""
    available: np.ndarray
    """(T,) how many of its items are there; at least 1."""
    reach: np.ndarray
    """(T,) (available + 1)^(-1/RANK_ROOT) - 1, for drawing ranks."""
    price: np.ndarray
    """(I,) today, promotions included."""
    is_promoted: np.ndarray
    season: np.ndarray
    """(T,) how much the time of the year favours a topic; around 1."""
    trending: np.ndarray
    """(T,) cumulative popularity of topics today; the last is 1."""
    category_items: np.ndarray
    """Items of the category that a drift of kind 'category' favours; available ones only."""

    def draw_items(self, topic: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """topic (N,), uniform (N,) in [0, 1) -> items (N,), by the power law of ranks within each topic."""
        rank = _power_law_ranks(uniform, reach=self.reach[topic], available=self.available[topic])
        return np.asarray(self.order[self.offset[topic] + rank])

    def draw_popular(self, uniform: np.ndarray) -> np.ndarray:
        """uniform (N,) -> items (N,) that everybody buys, by the power law of ranks in the whole shop."""
        available = len(self.bestsellers)
        rank = _power_law_ranks(uniform, reach=_reach(np.array(available)), available=available)
        return np.asarray(self.bestsellers[rank])

    def draw_topics(self, uniform: np.ndarray) -> np.ndarray:
        """uniform (N,) -> topics (N,) by today's popularity."""
        return np.minimum(np.searchsorted(self.trending, uniform), len(self.trending) - 1)


def _reach(available: np.ndarray) -> np.ndarray:
    return np.asarray((available + 1.0) ** (-1 / RANK_ROOT) - 1, dtype=np.float32)


def _power_law_ranks(uniform: np.ndarray, *, reach: np.ndarray, available: np.ndarray | int) -> np.ndarray:
    """(N,) ranks from 0, by the inverse of the power law's cumulative share, (1 + uniform · reach)^-RANK_ROOT - 1."""
    power = 1 + uniform * reach
    for _ in range(RANK_ROOT.bit_length() - 1):
        power *= power
    return np.asarray(np.minimum((1 / power).astype(np.int32) - 1, available - 1))


class Market:
    """The catalogue's state from day to day."""

    def __init__(self, settings: WorldSettings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        rng = generator(settings, Stream.MARKET)
        self._appeal = catalog.appeal.copy()
        self._trend = np.zeros(catalog.num_items)
        self._topic_trend = np.zeros(catalog.num_topics)
        self._season_peak = rng.random(catalog.num_topics) * DAYS_OF_YEAR
        self._season_strength = rng.beta(1, 3, size=catalog.num_topics)
        self._size_of_topic = np.log(catalog.topic_popularity)[catalog.topic]
        self._is_promoted = np.zeros(catalog.num_items, dtype=bool)
        self._favoured_category = int(rng.integers(len(catalog.category_names)))
        self._offset = np.searchsorted(np.sort(catalog.topic), np.arange(catalog.num_topics)).astype(np.int32)

    @property
    def favoured_category(self) -> str:
        """Name of the category that a drift of kind 'category' favours."""
        return self._catalog.category_names[self._favoured_category]

    def open_day(self, day: int) -> Shelf:
        """Call for each day in turn: trends are walks."""
        catalog, settings = self._catalog, self._settings
        rng = generator(settings, Stream.MARKET, day)
        self._walk(rng, day)
        for index, drift in enumerate(settings.drifts):
            if drift.kind == "popularity" and drift.day == day:
                self._shuffle_appeal(generator(settings, Stream.DRIFT, index), drift.size)
        is_there = catalog.first_day <= day
        novelty = np.where(catalog.first_day > 0, NOVELTY_BOOST * np.exp(-(day - catalog.first_day) / NOVELTY_DAYS), 0)
        wanted = self._appeal + self._trend + np.where(is_there, novelty, 0) + 0.5 * self._is_promoted
        # One float key a row sorts by topic, presence and appeal at once.
        key = catalog.topic * 1000.0 + np.where(is_there, 0.0, 500.0) - np.clip(wanted, -200, 200)
        available = np.bincount(catalog.topic[is_there], minlength=catalog.num_topics).astype(np.int32)
        there = np.flatnonzero(is_there)
        bestselling = wanted + self._size_of_topic
        season = 1 + self._season_strength * np.cos(
            2 * np.pi * (self._day_of_year(day) - self._season_peak) / DAYS_OF_YEAR
        )
        trending = np.cumsum(catalog.topic_popularity * season * np.exp(self._topic_trend))
        price = catalog.price * (1 - PROMOTION_DISCOUNT * self._is_promoted) * (1 + settings.drift_size("price", day))
        return Shelf(
            order=np.argsort(key).astype(np.int32),
            offset=self._offset,
            available=available,
            bestsellers=there[np.argsort(-bestselling[there])].astype(np.int32),
            reach=_reach(available),
            price=price.round(2),
            is_promoted=self._is_promoted.copy(),
            season=season.astype(np.float32),
            trending=(trending / trending[-1]).astype(np.float32),
            category_items=np.flatnonzero(is_there & (catalog.category == self._favoured_category)).astype(np.int32),
        )

    def _walk(self, rng: np.random.Generator, day: int) -> None:
        num_items = self._catalog.num_items
        self._trend = 0.97 * self._trend + 0.06 * rng.standard_normal(num_items)
        # A few items a day become a hit for some weeks.
        self._trend[rng.random(num_items) < 0.0005] += 1.5
        self._topic_trend = 0.98 * self._topic_trend + 0.04 * rng.standard_normal(self._catalog.num_topics)
        if day % PROMOTION_DAYS == 0:
            self._is_promoted = rng.random(num_items) < PROMOTED_SHARE

    def _shuffle_appeal(self, rng: np.random.Generator, share: float) -> None:
        """Chosen items of a topic trade places with each other."""
        chosen = np.flatnonzero(rng.random(self._catalog.num_items) < share)
        by_topic = chosen[np.argsort(self._catalog.topic[chosen], kind="stable")]
        shuffled = chosen[np.lexsort((rng.random(len(chosen)), self._catalog.topic[chosen]))]
        self._appeal[by_topic] = self._appeal[shuffled]

    def _day_of_year(self, day: int) -> int:
        return self._settings.day(day).timetuple().tm_yday
