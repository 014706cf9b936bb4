"""The data contract: what an event and a catalogue item are. docs/data-contract.md explains it to users."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")

EVENTS = pa.schema(
    [
        # Unique in the log. Given by the source, else the hash of the row's contract columns.
        pa.field("event_id", pa.string(), nullable=False),
        # Null for an anonymous session; such rows feed the graph, never a user.
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("timestamp", TIMESTAMP, nullable=False),
        # A basket or a visit. Given by the source, else cut where a user is silent for a session gap.
        pa.field("session_id", pa.string()),
        # Units bought, of one item.
        pa.field("quantity", pa.float64()),
        # Price of one unit, in the shop's currency.
        pa.field("price", pa.float64()),
    ]
)
# Events of a log that also says how an item was liked, on the shop's own scale (validation.min_rating to max_rating).
# A log without ratings has day files without the column.
RATED_EVENTS = EVENTS.append(pa.field("rating", pa.float64()))
EVENT_COLUMNS: tuple[str, ...] = tuple(RATED_EVENTS.names)
REQUIRED_EVENT_COLUMNS: tuple[str, ...] = ("item_id", "event_type", "timestamp")

CATALOG = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("category", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("price", pa.float64()),
        # Every further column of the source, as text: {"product_type": "YOGURT NOT MULTI-PACKS"}.
        pa.field("attributes", pa.map_(pa.string(), pa.string())),
    ]
)


def events_schema(columns: Iterable[str]) -> pa.Schema:
    """RATED_EVENTS where `rating` is among the columns, else EVENTS."""
    return RATED_EVENTS if "rating" in columns else EVENTS


def in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Events of either schema in this one: ratings that the table lacks are null, those that nobody wants are gone."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)


# Events that state a want strongly enough to be a training target and a metric's hit.
TARGET_EVENT_TYPES: tuple[str, ...] = ("purchase",)

# What each kind of event says of a user's taste, relative to a purchase.
EVENT_WEIGHTS: dict[str, float] = {
    "purchase": 1.0,
    "cart": 0.5,
    "wishlist": 0.5,
    "click": 0.2,
    "view": 0.2,
    "rating": 1.0,
    "impression": 0.0,
}
# Of a kind that a shop adds and nobody has weighed.
UNLISTED_EVENT_WEIGHT = 0.2

# One row a user and moment; lists run from the most recent item to the oldest.
USER_HISTORY = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("created_timestamp", TIMESTAMP, nullable=False),
        pa.field("history_items", pa.list_(pa.string())),
        # Sum of event weights an item: two purchases and a view are 2.2.
        pa.field("history_weights", pa.list_(pa.float32())),
        # Days from the item's last event to event_timestamp.
        pa.field("history_ages_days", pa.list_(pa.float32())),
        # The last events, repeats included.
        pa.field("recent_items", pa.list_(pa.string())),
        pa.field("recent_times", pa.list_(TIMESTAMP)),
    ]
)

USER_STATISTICS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("created_timestamp", TIMESTAMP, nullable=False),
        # Days since the last purchase.
        pa.field("recency_days", pa.float64()),
        # Sessions with a purchase.
        pa.field("frequency", pa.int64()),
        # Sum of price x quantity, in the shop's currency.
        pa.field("monetary", pa.float64()),
        # Mean distinct items a session.
        pa.field("basket_size", pa.float64()),
        # Mean quantile (0 cheap .. 1 dear) of bought items' prices within their category.
        pa.field("price_level", pa.float64()),
        pa.field("distinct_items", pa.int64()),
        pa.field("top_categories", pa.list_(pa.string())),
        pa.field("top_category_shares", pa.list_(pa.float64())),
    ]
)

ITEM_STATISTICS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_timestamp", TIMESTAMP, nullable=False),
        pa.field("created_timestamp", TIMESTAMP, nullable=False),
        pa.field("distinct_users", pa.int64()),
        pa.field("purchases", pa.int64()),
        # Purchases in the last window before event_timestamp.
        pa.field("recent_purchases", pa.int64()),
        pa.field("first_seen", TIMESTAMP),
        # Median of the unit prices paid.
        pa.field("median_price", pa.float64()),
    ]
)
