"""How people liked what they bought: events of type 'rating', in a log of RATED_EVENTS.

Who has a taste for an item's topic rates it high, who took it for another reason low; neither always.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from components.core.schemas import RATED_EVENTS, TIMESTAMP, in_schema
from components.simulate.behaviour import PURCHASE, SECOND, Batch
from components.simulate.catalog import Catalog
from components.simulate.event_rows import day_prefix, midnight_us, numbered_ids
from components.simulate.population import Population
from components.simulate.settings import WorldSettings
from components.simulate.streams import Stream, generator

RATING = "rating"
SECONDS_TO_RATE = 20  # after the purchase, and so on its day
LIKED, DISLIKED = 4.5, 2.5  # mean of stars from 1 to 5
SPREAD = 0.8


def with_ratings(table: pa.Table, rated: pa.Table) -> pa.Table:
    """A batch's table as it is written, and its ratings, in RATED_EVENTS."""
    return pa.concat_tables([in_schema(table, RATED_EVENTS), rated])


def rating_rows(batch: Batch, settings: WorldSettings, catalog: Catalog, population: Population) -> pa.Table:
    """Ratings of a share of the batch's purchases, in RATED_EVENTS. They have randomness of their own."""
    rng = generator(settings, Stream.RATINGS, batch.day, batch.first_session)
    bought = np.flatnonzero((batch.event_type == PURCHASE) & ~batch.is_anonymous[batch.session])
    rated = bought[rng.random(len(bought)) < settings.rating_share]
    user, item = batch.session_user[batch.session[rated]], batch.item[rated]
    is_liked = (population.tastes[user] == catalog.topic[item][:, None]).any(axis=1)
    stars = np.where(is_liked, LIKED, DISLIKED) + rng.normal(scale=SPREAD, size=len(rated))
    day = settings.day(batch.day)
    # A purchase's number is its rating's, under another letter.
    numbers = numbered_ids(day_prefix("r", day), batch.first_event, batch.num_events)
    sessions = numbered_ids(day_prefix("s", day), batch.first_session, len(batch.session_user))
    columns = {
        "event_id": numbers.take(pa.array(rated)),
        "user_id": population.user_ids.take(pa.array(user)),
        "item_id": catalog.item_ids.take(pa.array(item)),
        "event_type": pa.repeat(pa.scalar(RATING), len(rated)),
        "timestamp": pa.array(batch.time[rated] + SECONDS_TO_RATE * SECOND + midnight_us(day)).cast(TIMESTAMP),
        "session_id": sessions.take(pa.array(batch.session[rated])),
        "quantity": pa.nulls(len(rated), pa.float64()),
        "price": pa.nulls(len(rated), pa.float64()),
        "rating": np.clip(np.rint(stars), 1, 5),
    }
    return pa.table(columns, schema=RATED_EVENTS)
