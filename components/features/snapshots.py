"""Features as they were known at given moments: a row of moment T is made of events before T, and of nothing else.

DuckDB does the work, on ids replaced by their rank in sorted order and on times as microseconds. Sums are of integers
and decimals, and every order has a last tie-breaker, so equal events give equal bytes however many threads ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from components.core.schemas import (
    EVENT_WEIGHTS,
    EVENTS,
    ITEM_STATISTICS,
    TARGET_EVENT_TYPES,
    TIMESTAMP,
    UNLISTED_EVENT_WEIGHT,
    USER_HISTORY,
    USER_STATISTICS,
)
from components.core.sections import FeatureSettings

DAY_US = 86_400_000_000
SECOND_US = 1_000_000
# Event weights are summed as whole ten-thousandths.
WEIGHT_UNITS = 10_000


class Snapshots:
    """The features of all users and items at `moments`.

    `event_files` are parquet files of schema EVENTS, `catalog_file` one of schema CATALOG, which may hold no row.
    `recent_window` is how far back `recent_purchases` looks. Every table is sorted by moment, then id; a user or item
    is in a moment's rows if it has an event before that moment.
    """

    def __init__(
        self,
        *,
        event_files: Sequence[Path],
        catalog_file: Path,
        moments: Sequence[datetime],
        recent_window: timedelta,
        settings: FeatureSettings,
    ) -> None:
        self._settings = settings
        self._database = duckdb.connect()
        self._database.execute("SET autoinstall_known_extensions = false")
        at_us = pa.array(sorted(set(moments)), TIMESTAMP).cast(pa.int64())
        self._at_us = at_us.to_numpy()
        self._load(event_files, catalog_file, at_us)
        self._count(recent_window // timedelta(microseconds=1))
        self._item_ids = self._column("SELECT item_id FROM items ORDER BY item")
        self._user_ids = self._column("SELECT user_id FROM users ORDER BY user_rank")
        # One row a moment and user that exists then; `key` numbers them so that lists can be cut by it.
        self._frame = self._arrays(
            "SELECT moment, user_rank, at_us FROM moments JOIN users ON first_us < at_us ORDER BY moment, user_rank"
        )

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def user_history(self) -> pa.Table:
        """Schema USER_HISTORY: distinct items most recent first, and the last events one by one."""
        taste = self._arrays("SELECT * FROM tastes ORDER BY moment, user_rank, last_us DESC, item")
        offsets, keep = self._lists(taste, length=self._settings.history_length)
        age_us = self._at_us[taste["moment"][keep]] - taste["last_us"][keep]
        recent = self._arrays(_RECENT, length=self._settings.recent_items)
        recent_offsets, recent_keep = self._lists(recent, length=self._settings.recent_items)
        # Feast carries times in lists as whole seconds; cut here, they are the same on- and offline.
        recent_us = recent["time_us"][recent_keep] // SECOND_US * SECOND_US
        columns = {
            **self._user_keys(),
            "history_items": _list_array(offsets, self._item_ids.take(pa.array(taste["item"][keep]))),
            "history_weights": _list_array(offsets, pa.array((taste["weight"][keep] / WEIGHT_UNITS).astype("f4"))),
            "history_ages_days": _list_array(offsets, pa.array((age_us / DAY_US).astype("f4"))),
            "recent_items": _list_array(recent_offsets, self._item_ids.take(pa.array(recent["item"][recent_keep]))),
            "recent_times": _list_array(recent_offsets, pa.array(recent_us).cast(TIMESTAMP)),
        }
        return pa.table(columns).cast(USER_HISTORY)

    def user_statistics(self) -> pa.Table:
        """Schema USER_STATISTICS; what only purchases tell is null for a user without any."""
        scalars = self._database.sql(_USER_STATISTICS).to_arrow_table()
        share = self._arrays(_CATEGORY_SHARES, length=self._settings.top_categories)
        offsets, keep = self._lists(share, length=self._settings.top_categories)
        categories = self._column("SELECT DISTINCT category FROM items WHERE category IS NOT NULL ORDER BY category")
        lists = {
            "top_categories": _list_array(offsets, categories.take(pa.array(share["category_rank"][keep]))),
            "top_category_shares": _list_array(offsets, pa.array(share["share"][keep])),
        }
        columns = {**self._user_keys(), **_columns(scalars), **lists}
        return pa.table({name: columns[name] for name in USER_STATISTICS.names}).cast(USER_STATISTICS)

    def item_statistics(self) -> pa.Table:
        """Schema ITEM_STATISTICS, anonymous events included."""
        table = self._database.sql("SELECT * FROM item_statistics ORDER BY moment, item").to_arrow_table()
        at = pa.array(self._at_us[table["moment"].to_numpy()]).cast(TIMESTAMP)
        columns = {
            **_columns(table),
            "item_id": self._item_ids.take(table["item"].combine_chunks()),
            "event_timestamp": at,
            "created_timestamp": at,
            "first_seen": table["first_us"].cast(TIMESTAMP),
        }
        return pa.table({name: columns[name] for name in ITEM_STATISTICS.names}).cast(ITEM_STATISTICS)

    def _load(self, event_files: Sequence[Path], catalog_file: Path, at_us: pa.Array) -> None:
        """The tables moments, items, users, events: all that is known at the last moment."""
        database = self._database
        database.register("moment_times", pa.table({"at_us": at_us}))
        weights = [round(weight * WEIGHT_UNITS) for weight in EVENT_WEIGHTS.values()]
        database.register(
            "weights", pa.table({"event_type": list(EVENT_WEIGHTS), "weight": pa.array(weights, "int32")})
        )
        if event_files:
            database.read_parquet([str(path) for path in event_files]).create_view("log")
        else:
            database.register("log", EVENTS.empty_table())
        database.read_parquet(str(catalog_file)).create_view("catalog")
        database.execute(_MOMENTS)
        parameters = {
            "moments": at_us.to_pylist(),
            "targets": list(TARGET_EVENT_TYPES),
            "unlisted": round(UNLISTED_EVENT_WEIGHT * WEIGHT_UNITS),
        }
        database.execute(_KNOWN, parameters)
        for query in (_ITEMS, _USERS, _EVENTS, "DROP TABLE known"):
            database.execute(query)

    def _count(self, recent_window_us: int) -> None:
        """The tables that several features read: tastes (moment, user, item) and item_statistics (moment, item)."""
        self._database.execute(_TASTES)
        self._database.execute(_ITEM_STATISTICS, {"window_us": recent_window_us})

    def _user_keys(self) -> dict[str, pa.Array]:
        at = pa.array(self._frame["at_us"]).cast(TIMESTAMP)
        # Created when it could first be known, which is the moment itself: see docs/features.md.
        users = self._user_ids.take(pa.array(self._frame["user_rank"]))
        return {"user_id": users, "event_timestamp": at, "created_timestamp": at}

    def _lists(self, rows: dict[str, np.ndarray], *, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut rows sorted by (moment, user) into one list a frame row: offsets (rows + 1,), and the rows to keep."""
        users = len(self._user_ids)
        frame_key = self._frame["moment"].astype("i8") * users + self._frame["user_rank"]
        counts = np.bincount(
            np.searchsorted(frame_key, rows["moment"].astype("i8") * users + rows["user_rank"]),
            minlength=len(frame_key),
        )
        starts = np.cumsum(counts) - counts
        place = np.arange(counts.sum()) - np.repeat(starts, counts)
        return np.concatenate([[0], np.cumsum(np.minimum(counts, length))]), place < length

    def _arrays(self, query: str, **parameters: Any) -> dict[str, np.ndarray]:
        relation = self._database.sql(query, params=parameters) if parameters else self._database.sql(query)
        return {name: column.to_numpy() for name, column in _columns(relation.to_arrow_table()).items()}

    def _column(self, query: str) -> pa.Array:
        return self._database.sql(query).to_arrow_table().column(0).combine_chunks()


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _list_array(offsets: np.ndarray, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


_MOMENTS = """
CREATE TABLE moments AS
SELECT (row_number() OVER (ORDER BY at_us))::INTEGER - 1 AS moment, at_us FROM moment_times
"""

# `seen_from` is the number of the first moment that knows the event.
_KNOWN = """
CREATE TABLE known AS
SELECT user_id, item_id, session_id, price,
       epoch_us(timestamp) AS time_us,
       len(list_filter($moments::BIGINT[], lambda moment: moment <= epoch_us(timestamp)))::INTEGER AS seen_from,
       coalesce(weight, $unlisted) AS weight,
       list_contains($targets, event_type) AS is_target,
       (price * coalesce(quantity, 1))::DECIMAL(38, 6) AS amount
FROM log LEFT JOIN weights USING (event_type)
WHERE epoch_us(timestamp) < (SELECT max(at_us) FROM moments)
"""

_ITEMS = """
CREATE TABLE items AS
WITH seen AS (SELECT DISTINCT item_id FROM known)
SELECT item_id, (row_number() OVER (ORDER BY item_id))::INTEGER - 1 AS item, price AS listed_price, category,
       CASE WHEN category IS NOT NULL THEN (dense_rank() OVER (ORDER BY category NULLS LAST))::INTEGER - 1 END
           AS category_rank
FROM seen LEFT JOIN catalog USING (item_id)
"""

_USERS = """
CREATE TABLE users AS
SELECT user_id, (row_number() OVER (ORDER BY user_id))::INTEGER - 1 AS user_rank, min(time_us) AS first_us
FROM known WHERE user_id IS NOT NULL GROUP BY user_id
"""

# An event without a session counts as a visit of its day. The hash is only compared within one user.
_EVENTS = """
CREATE TABLE events AS
SELECT user_rank, item, time_us, seen_from, weight, is_target, amount, price,
       hash(coalesce(session_id, (time_us // 86400000000)::VARCHAR)) AS session
FROM known JOIN items USING (item_id) LEFT JOIN users USING (user_id)
"""

_TASTES = """
CREATE TABLE tastes AS
WITH touches AS (
    SELECT user_rank, item, seen_from,
           sum(weight)::INTEGER AS weight, max(time_us) AS last_us, bool_or(is_target) AS is_bought
    FROM events WHERE user_rank IS NOT NULL AND weight > 0 GROUP BY ALL
)
SELECT moment, user_rank, item,
       sum(weight)::INTEGER AS weight, max(last_us) AS last_us, bool_or(is_bought) AS is_bought
FROM moments JOIN touches ON seen_from <= moment GROUP BY ALL
"""

_RECENT = """
WITH visits AS (
    SELECT user_rank, item, time_us, row_number() OVER (PARTITION BY user_rank ORDER BY time_us, item DESC) AS place,
           seen_from
    FROM events WHERE user_rank IS NOT NULL AND weight > 0
), seen AS (
    SELECT moment, user_rank, count(*) AS visits FROM moments JOIN visits ON seen_from <= moment GROUP BY ALL
)
SELECT moment, user_rank, item, time_us
FROM seen JOIN visits USING (user_rank)
WHERE place <= seen.visits AND place > seen.visits - $length
ORDER BY moment, user_rank, place DESC
"""

# The median is found over (price, count) pairs: an item has few prices and many sales.
_ITEM_STATISTICS = """
CREATE TABLE item_statistics AS
WITH counts AS (
    SELECT moment, item, count(*) FILTER (is_target) AS purchases, min(time_us) AS first_us,
           count(*) FILTER (is_target AND time_us >= at_us - $window_us) AS recent_purchases
    FROM moments JOIN events ON seen_from <= moment GROUP BY ALL
), buyers AS (
    SELECT moment, item, count(*) AS distinct_users FROM tastes GROUP BY ALL
), sales AS (
    SELECT item, price, seen_from, count(*) AS sold
    FROM events WHERE is_target AND price IS NOT NULL GROUP BY ALL
), prices AS (
    SELECT moment, item, price, sum(sold) AS sold FROM moments JOIN sales ON seen_from <= moment GROUP BY ALL
), running AS (
    SELECT moment, item, price, sum(sold) OVER (PARTITION BY moment, item ORDER BY price) AS so_far,
           sum(sold) OVER (PARTITION BY moment, item) AS total
    FROM prices
), medians AS (
    SELECT moment, item,
           (min(price) FILTER (2 * so_far >= total) + min(price) FILTER (2 * so_far > total)) / 2 AS median_price
    FROM running GROUP BY ALL
)
SELECT moment, item, coalesce(distinct_users, 0) AS distinct_users, purchases, recent_purchases, first_us, median_price
FROM counts LEFT JOIN buyers USING (moment, item) LEFT JOIN medians USING (moment, item)
"""

# A basket's items are counted where each first appears in it, so that counts add up over moments.
# The level of a price is its quantile in the item's category, ties sharing their middle; alone it is 0.5.
_USER_STATISTICS = """
WITH bought AS (
    SELECT * FROM events WHERE user_rank IS NOT NULL AND is_target
), firsts AS (
    SELECT user_rank, session, item, min(seen_from) AS seen_from FROM bought GROUP BY ALL
), widths AS (
    SELECT user_rank, session, seen_from, count(*) AS items FROM firsts GROUP BY ALL
), parts AS (
    SELECT user_rank, session, seen_from, sum(amount) AS amount, max(time_us) AS last_us FROM bought GROUP BY ALL
), baskets AS (
    SELECT moment, user_rank, session, sum(items) AS items, sum(amount) AS amount, max(last_us) AS last_us
    FROM moments JOIN parts ON seen_from <= moment LEFT JOIN widths USING (user_rank, session, seen_from)
    GROUP BY ALL
), spending AS (
    SELECT moment, user_rank, max(last_us) AS last_us, count(*) AS frequency, sum(amount)::DOUBLE AS monetary,
           sum(items) / count(*) AS basket_size
    FROM baskets GROUP BY ALL
), priced AS (
    SELECT moment, item, category_rank, coalesce(median_price, listed_price) AS price
    FROM item_statistics JOIN items USING (item)
), levels AS (
    SELECT moment, item, (
        (rank() OVER (PARTITION BY moment, category_rank ORDER BY price) - 1
         + count(*) OVER (PARTITION BY moment, category_rank, price) / 2
        ) / count(*) OVER (PARTITION BY moment, category_rank))::DECIMAL(12, 9) AS level
    FROM priced WHERE price IS NOT NULL
), tastes_of AS (
    SELECT moment, user_rank, count(*) AS distinct_items, avg(level) FILTER (is_bought) AS price_level
    FROM tastes LEFT JOIN levels USING (moment, item) GROUP BY ALL
)
SELECT (at_us - last_us) / 86400000000 AS recency_days, coalesce(frequency, 0) AS frequency, monetary, basket_size,
       price_level, coalesce(distinct_items, 0) AS distinct_items
FROM moments JOIN users ON first_us < at_us
LEFT JOIN spending USING (moment, user_rank)
LEFT JOIN tastes_of USING (moment, user_rank)
ORDER BY moment, user_rank
"""

# Shares are of all of a user's weight; items without a category have their part in it and no name.
_CATEGORY_SHARES = """
WITH totals AS (
    SELECT moment, user_rank, category_rank, sum(weight)::BIGINT AS weight
    FROM tastes JOIN items USING (item) GROUP BY ALL
), shares AS (
    SELECT *, weight / (sum(weight) OVER (PARTITION BY moment, user_rank)) AS share FROM totals
)
SELECT moment, user_rank, category_rank, share
FROM shares WHERE category_rank IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY moment, user_rank ORDER BY weight DESC, category_rank) <= $length
ORDER BY moment, user_rank, weight DESC, category_rank
"""
