"""A day of visits: who comes when, what is looked at, put in the cart and bought.

N: sessions, V: views, E: events of a batch. Everything is drawn for a whole batch at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from components.simulate.catalog import Catalog
from components.simulate.market import Shelf
from components.simulate.population import FRIENDS, NOTHING, REMEMBERED, TASTES, Population
from components.simulate.settings import WorldSettings
from components.simulate.streams import Stream, generator

EVENT_TYPES = ("view", "cart", "purchase")
VIEW, CART, PURCHASE = range(3)

SESSIONS_PER_BATCH = 32_768
SECOND = 1_000_000
DAY_SECONDS = 86_400
MAX_VIEWS = 250
# Spread of views a session, so that baskets are as unequal as the demo log's.
VIEWS_SPREAD = 1.25
SECONDS_BETWEEN_VIEWS = (5, 55)
# Visits by weekday (Monday first) and by hour of the day, relative.
WEEKDAYS = (0.96, 0.91, 0.86, 0.87, 0.92, 1.2, 1.28)
HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 10, 12, 13, 14, 14, 13, 13, 14, 16, 19, 22, 22, 19, 14, 8, 4)
# A session has one main taste and a second one.
MAIN_TASTE_SHARE = 0.65
BUYING_SESSION_SHARE = 0.55
BUY_PER_VIEW = 0.5
CART_WITHOUT_BUYING = 0.12


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Events in order of session, then time; session s of a batch is `first_session + s` of the day."""

    day: int
    day_sessions: int
    """All sessions of the day, this batch's and the others'."""
    first_session: int
    first_event: int
    session: np.ndarray
    """(E,) int32 index into `session_user`."""
    session_user: np.ndarray
    """(N,) int32."""
    is_anonymous: np.ndarray
    """(N,) bool: the log does not say who came."""
    item: np.ndarray
    event_type: np.ndarray
    """(E,) int8: VIEW, CART or PURCHASE."""
    time: np.ndarray
    """(E,) int64 microseconds since the day's midnight."""
    quantity: np.ndarray
    """(E,) float64; NaN in views."""
    price: np.ndarray

    @property
    def num_events(self) -> int:
        return len(self.item)


def seasonal_rate(settings: WorldSettings, day: int) -> float:
    """Visits of a day relative to the mean: weekday, month and a peak before Christmas."""
    date = settings.day(day)
    day_of_year = date.timetuple().tm_yday
    yearly = 1 + 0.06 * np.cos(2 * np.pi * (day_of_year - 15) / 365.25)
    december = 1 + 0.25 * np.exp(-(((day_of_year - 352) / 10) ** 2))
    return float(WEEKDAYS[date.weekday()] * yearly * december * (1 + settings.drift_size("volume", day)))


def live_day(
    settings: WorldSettings, catalog: Catalog, population: Population, shelf: Shelf, day: int
) -> Iterator[Batch]:
    """The day's events, a batch of sessions at a time; the population remembers what it buys."""
    rng = generator(settings, Stream.BEHAVIOUR, day)
    users = population.visits(rng, day, per_user=settings.sessions_per_user_day * seasonal_rate(settings, day))
    num_views = _views_per_session(rng, len(users), settings.views_per_session)
    start = _start_times(rng, num_views)
    by_start = np.argsort(start, kind="stable")
    first_event = 0
    for first in range(0, len(users), SESSIONS_PER_BATCH):
        chosen = by_start[first : first + SESSIONS_PER_BATCH]
        batch = _batch(
            generator(settings, Stream.BEHAVIOUR, day, first),
            settings,
            catalog,
            population,
            shelf,
            day=day,
            day_sessions=len(users),
            first_session=first,
            first_event=first_event,
            user=users[chosen],
            num_views=num_views[chosen],
            start=start[chosen],
        )
        yield batch
        first_event += batch.num_events


def _views_per_session(rng: np.random.Generator, count: int, median: float) -> np.ndarray:
    draws = np.exp(rng.normal(scale=VIEWS_SPREAD, size=count)) * (median - 0.5) + 0.5
    return np.clip(draws, 1, MAX_VIEWS).astype(np.int32)


def _start_times(rng: np.random.Generator, num_views: np.ndarray) -> np.ndarray:
    """(N,) int64 microseconds since midnight, early enough for a session to end on its day."""
    share = np.cumsum(HOURS) / sum(HOURS)
    hour = np.searchsorted(share, rng.random(len(num_views)))
    second = hour * 3600 + rng.random(len(num_views)) * 3600
    latest = DAY_SECONDS - (num_views + 1) * (SECONDS_BETWEEN_VIEWS[1] + 4) - 120
    return np.asarray(np.minimum(second, latest) * SECOND, dtype=np.int64)


def _batch(
    rng: np.random.Generator,
    settings: WorldSettings,
    catalog: Catalog,
    population: Population,
    shelf: Shelf,
    *,
    day: int,
    day_sessions: int,
    first_session: int,
    first_event: int,
    user: np.ndarray,
    num_views: np.ndarray,
    start: np.ndarray,
) -> Batch:
    session_of_view = np.repeat(np.arange(len(user), dtype=np.int32), num_views)
    item_of_view = _pick_items(rng, settings, catalog, population, shelf, day, user, session_of_view)

    # Which views end in the cart, and which of those at the till.
    conversion = 1 + settings.drift_size("conversion", day)
    buys_something = rng.random(len(user), dtype=np.float32) < BUYING_SESSION_SHARE
    draw = rng.random(len(session_of_view), dtype=np.float32)
    buy_chance = np.where(shelf.is_promoted[item_of_view], np.float32(1.3), np.float32(1.0)) * (
        BUY_PER_VIEW * conversion
    )
    is_bought = buys_something[session_of_view] & (draw < buy_chance)
    is_carted = is_bought | (draw > 1 - CART_WITHOUT_BUYING)

    # Where each event stands: in a session views, each followed by its cart event, and the purchases at the end.
    rows_of_view = 1 + is_carted.astype(np.int32)
    first_view = np.cumsum(num_views) - num_views
    rows_before = np.cumsum(rows_of_view) - rows_of_view
    bought_before: np.ndarray = np.cumsum(is_bought) - is_bought
    browsing_rows = np.add.reduceat(rows_of_view, first_view)
    bought_rows = np.add.reduceat(is_bought.astype(np.int32), first_view)
    session_rows = browsing_rows + bought_rows
    base = np.cumsum(session_rows) - session_rows
    view_at = (base - rows_before[first_view])[session_of_view] + rows_before
    cart_at = view_at[is_carted] + 1
    bought_session = session_of_view[is_bought]
    bought_at = (base + browsing_rows - bought_before[first_view])[bought_session] + bought_before[is_bought]

    num_events = int(session_rows.sum())
    item = np.empty(num_events, dtype=np.int32)
    event_type = np.full(num_events, VIEW, dtype=np.int8)
    time = np.empty(num_events, dtype=np.int64)
    quantity = np.full(num_events, np.nan)
    item[view_at], item[cart_at], item[bought_at] = item_of_view, item_of_view[is_carted], item_of_view[is_bought]
    event_type[cart_at], event_type[bought_at] = CART, PURCHASE

    gap = rng.integers(SECONDS_BETWEEN_VIEWS[0] * 1000, SECONDS_BETWEEN_VIEWS[1] * 1000, len(draw), dtype=np.int32)
    since = np.cumsum(gap, dtype=np.int64)
    view_time = (start - since[first_view] * 1000)[session_of_view] + since * 1000
    time[view_at] = view_time
    time[cart_at] = view_time[is_carted] + 2 * SECOND
    last_view = first_view + num_views - 1
    time[bought_at] = (view_time[last_view] + 60 * SECOND)[bought_session]

    units = 1 + np.floor(rng.exponential(0.45, len(draw)).astype(np.float32))
    quantity[cart_at], quantity[bought_at] = units[is_carted], units[is_bought]
    population.remember(user[bought_session], item_of_view[is_bought], rng)
    anonymous_share = settings.anonymous_share * (1 + settings.drift_size("anonymous", day))
    return Batch(
        day=day,
        day_sessions=day_sessions,
        first_session=first_session,
        first_event=first_event,
        session=np.repeat(np.arange(len(user), dtype=np.int32), session_rows),
        session_user=user,
        is_anonymous=rng.random(len(user)) < anonymous_share,
        item=item,
        event_type=event_type,
        time=time,
        quantity=quantity,
        price=shelf.price[item],
    )


def _pick_items(
    rng: np.random.Generator,
    settings: WorldSettings,
    catalog: Catalog,
    population: Population,
    shelf: Shelf,
    day: int,
    user: np.ndarray,
    session_of_view: np.ndarray,
) -> np.ndarray:
    """(V,) the items looked at: by taste or popularity, then some replaced by repeats, friends' purchases, drift."""
    count = len(session_of_view)
    main, second = (_pick_taste(rng, population, shelf, user) for _ in range(2))
    draw = rng.random((2, count), dtype=np.float32)
    # One draw decides whether taste rules, and which of the session's two tastes.
    follows_main = draw[0] < settings.taste_share * MAIN_TASTE_SHARE
    topic = np.where(follows_main, main[session_of_view], second[session_of_view])
    item = shelf.draw_items(topic, draw[1])
    free = np.flatnonzero(draw[0] >= settings.taste_share)
    item[free] = shelf.draw_popular(draw[1, free])

    towards_category = settings.drift_size("category", day)
    if towards_category and len(shelf.category_items):
        moved = np.flatnonzero(rng.random(count, dtype=np.float32) < towards_category)
        item[moved] = rng.choice(shelf.category_items, size=len(moved))

    # Those who look at the past first: at one's own purchases, or at a friend's.
    draw = rng.random(count, dtype=np.float32)
    looks_back = np.flatnonzero(draw < settings.repeat_share + settings.social_share)
    person = user[session_of_view[looks_back]]
    is_social = draw[looks_back] >= settings.repeat_share
    person[is_social] = population.friends[person[is_social], rng.integers(FRIENDS, size=int(is_social.sum()))]
    known = population.bought[person, rng.integers(REMEMBERED, size=len(person), dtype=np.int32)]
    wants = (known != NOTHING) & (rng.random(len(known), dtype=np.float32) < catalog.repeatability[known])
    item[looks_back[wants]] = known[wants]
    return item


def _pick_taste(rng: np.random.Generator, population: Population, shelf: Shelf, user: np.ndarray) -> np.ndarray:
    """(N,) a topic for each session: one of the person's tastes, by weight and season."""
    tastes = population.tastes[user]
    weight = np.cumsum(population.weights[user] * shelf.season[tastes], axis=1)
    mark = rng.random(len(user), dtype=np.float32) * weight[:, -1]
    slot = np.minimum((weight < mark[:, None]).sum(axis=1), TASTES - 1)
    return np.asarray(tastes[np.arange(len(user)), slot])
