"""The people: what they like, how often they come, whom they know, what they bought last.

U: people, S: tastes a person, F: friends a person, M: purchases remembered. A taste is a topic of the catalogue.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from components.simulate.catalog import Catalog
from components.simulate.market import Shelf
from components.simulate.settings import WorldSettings
from components.simulate.streams import Stream, generator

TASTES = 6
FRIENDS = 8
REMEMBERED = 16
PEOPLE_PER_COMMUNITY = 40
NOTHING = -1
# Spread of visits between people, so that the busiest tenth makes a third of the demo log's rows.
ACTIVITY_SPREAD = 0.88


class Population:
    """Mutable state; every change comes from a stream of the seed."""

    def __init__(self, settings: WorldSettings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        rng = generator(settings, Stream.POPULATION)
        users = settings.users
        self.user_ids = pa.array([f"u{index:07d}" for index in range(users)])
        num_communities = max(1, users // PEOPLE_PER_COMMUNITY)
        self._community = rng.integers(num_communities, size=users)
        popularity = np.cumsum(catalog.topic_popularity)
        community_tastes = _draw(rng, popularity, (num_communities, 3))
        self.tastes = _draw(rng, popularity, (users, TASTES)).astype(np.int32)
        # Two of six tastes come from one's community.
        for slot in range(2):
            self.tastes[:, slot] = community_tastes[self._community, rng.integers(3, size=users)]
        self.weights = rng.gamma(0.8, size=(users, TASTES)).astype(np.float32) + np.float32(0.05)
        self.weights /= self.weights.sum(axis=1, keepdims=True)
        self.friends = self._make_friends(rng)
        self.bought = np.full((users, REMEMBERED), NOTHING, dtype=np.int32)
        activity = np.exp(rng.normal(scale=ACTIVITY_SPREAD, size=users))
        self.activity = activity / activity.mean()
        self.first_day = np.zeros(users, dtype=np.int64)
        if settings.days > 1:
            comes_later = rng.random(users) < settings.later_users_share
            self.first_day[comes_later] = rng.integers(1, settings.days, size=int(comes_later.sum()))

    def _make_friends(self, rng: np.random.Generator) -> np.ndarray:
        """(U, F): mostly of one's own community."""
        users = len(self._community)
        by_community = np.argsort(self._community, kind="stable")
        place = np.empty(users, dtype=np.int64)
        place[by_community] = np.arange(users)
        near = by_community[
            (place[:, None] + rng.integers(1, PEOPLE_PER_COMMUNITY // 2, size=(users, FRIENDS))) % users
        ]
        anyone = rng.integers(users, size=(users, FRIENDS))
        return np.where(rng.random((users, FRIENDS)) < 0.85, near, anyone).astype(np.int32)

    def live_day(self, day: int, shelf: Shelf) -> None:
        """Tastes move: towards a friend's, towards what trends, or anywhere."""
        settings = self._settings
        rng = generator(settings, Stream.TASTES, day)
        movers = np.flatnonzero(rng.random(settings.users) < settings.taste_change_per_day)
        friend = self.friends[movers, rng.integers(FRIENDS, size=len(movers))]
        from_friend = self.tastes[friend, rng.integers(TASTES, size=len(movers))]
        from_trend = shelf.draw_topics(rng.random(len(movers), dtype=np.float32))
        new = np.where(rng.random(len(movers)) < 0.5, from_friend, from_trend)
        self.tastes[movers, rng.integers(TASTES, size=len(movers))] = new
        for index, drift in enumerate(settings.drifts):
            if drift.kind == "taste" and drift.day == day:
                chooser = generator(settings, Stream.DRIFT, index)
                chosen = chooser.permutation(np.flatnonzero(chooser.random(settings.users) < drift.size))
                # A rotation by one: nobody among them keeps his own, and topics stay as popular as they were.
                self.tastes[chosen] = self.tastes[np.roll(chosen, 1)]

    def remember(self, user: np.ndarray, item: np.ndarray, rng: np.random.Generator) -> None:
        """user (N,) bought item (N,): each takes the place of an older purchase."""
        self.bought[user, rng.integers(REMEMBERED, size=len(user), dtype=np.int32)] = item

    def visits(self, rng: np.random.Generator, day: int, *, per_user: float) -> np.ndarray:
        """Users of the day's sessions, one entry a session, ascending."""
        rate = self.activity * per_user * (self.first_day <= day)
        return np.repeat(np.arange(len(rate), dtype=np.int32), rng.poisson(rate))

    def truth(self) -> pa.Table:
        """What a recommender may only guess. Tastes are those at the time of the call."""
        return pa.table(
            {
                "user_id": self.user_ids,
                "tastes": pa.FixedSizeListArray.from_arrays(pa.array(self.tastes.ravel()), TASTES),
                "taste_weights": pa.FixedSizeListArray.from_arrays(pa.array(self.weights.ravel()), TASTES),
                "activity": self.activity,
                "first_day": self.first_day.astype(np.int32),
            }
        )

    def ties(self) -> pa.Table:
        """Who knows whom: user_id, friend_id, each pair once a direction, sorted."""
        users = len(self.user_ids)
        user = np.repeat(np.arange(users, dtype=np.int64), FRIENDS)
        pairs = np.unique(user * users + self.friends.ravel())
        pairs = pairs[pairs // users != pairs % users]
        return pa.table({"user_id": self.user_ids.take(pairs // users), "friend_id": self.user_ids.take(pairs % users)})


def _draw(rng: np.random.Generator, cumulative: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.minimum(np.searchsorted(cumulative, rng.random(shape)), len(cumulative) - 1)
