"""A simulated shop as the monitor sees it: its days tallied through a lens that its own training days make."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from components.core.schemas import EVENTS
from components.monitor.lens import Lens, make_lens, positions
from components.monitor.tally import Tally, cut_bins, tally_day
from components.monitor.windows import Reference
from components.simulate.event_rows import event_table
from components.simulate.settings import WorldSettings
from components.simulate.world import World

TRAINING_DAYS = 84
NEIGHBOURS = 20


def watched_days(settings: WorldSettings) -> tuple[Reference, list[tuple[date, Tally]]]:
    """Live the world's days: the reference of the first `TRAINING_DAYS`, and a tally of each day after them."""
    world = World(settings)
    training = [_day(world) for _ in range(TRAINING_DAYS)]
    lens = lens_of(training, world)
    bins = cut_bins(training, lens)
    tallied = [(settings.day(day), tally_day(table, lens, bins)) for day, table in enumerate(training)]
    later = [(settings.day(day), tally_day(_day(world), lens, bins)) for day in range(TRAINING_DAYS, settings.days)]
    return Reference.of(tallied), later


def lens_of(training: list[pa.Table], world: World) -> Lens:
    """What bundle, graph and features of these days would hold, without training one."""
    table = pa.concat_tables([day.select(["user_id", "item_id", "session_id"]) for day in training])
    there = world.catalog.first_day < TRAINING_DAYS
    item_ids = world.catalog.item_ids.filter(pa.array(there))
    item = positions(table["item_id"], item_ids)
    user_ids = table["user_id"].combine_chunks().unique().drop_null()
    user = positions(table["user_id"], user_ids)
    named = user >= 0
    distinct = np.unique(user[named] * len(item_ids) + item[named])
    categories = [world.catalog.category_names[code] for code in world.catalog.category[there]]
    seen_user, seen_item = distinct // len(item_ids), distinct % len(item_ids)
    depth = np.bincount(seen_user, minlength=len(user_ids))
    return make_lens(
        item_ids=item_ids.to_pylist(),
        categories=categories,
        users_of_item=np.bincount(seen_item, minlength=len(item_ids)),
        prices=world.catalog.price[there],
        edges=_edges(item, positions(table["session_id"], table["session_id"].combine_chunks().unique())),
        user_ids=user_ids.to_pylist(),
        tastes=(seen_user, [categories[one] for one in seen_item], 1 / depth[seen_user]),
        seen=(seen_user, seen_item),
    )


def _edges(item: np.ndarray, session: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items that most often stand next to each item in a session."""
    order = np.argsort(session, kind="stable")
    first, second = order[:-1], order[1:]
    beside = (session[first] == session[second]) & (item[first] != item[second])
    num_items = int(item.max()) + 1
    key, count = np.unique(item[first[beside]] * num_items + item[second[beside]], return_counts=True)
    source, target = key // num_items, key % num_items
    order = np.lexsort((-count, source))
    rank = np.arange(len(order)) - np.searchsorted(source[order], source[order])
    kept = order[rank < NEIGHBOURS]
    return source[kept], target[kept]


def _day(world: World) -> pa.Table:
    tables = [event_table(batch, world.settings, world.catalog, world.population) for batch in world.live_day()]
    return pa.concat_tables([table.cast(EVENTS) for table in tables])
