"""The catalogue: items in categories of very unequal sizes, in brands, and in hidden topics that people like or do not.

I: items, T: topics, C: categories. A topic ('what a family with a puppy and a barbecue buys') crosses categories, and
only its faint marks on category, brand, style and price show in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa

from components.simulate.settings import WorldSettings
from components.simulate.streams import Stream, generator
from components.simulate.vocabulary import Department, brand_names, departments

# How faintly a topic marks its items: shares of items that follow the topic's own categories, brands and style.
CATEGORY_FOLLOWS_TOPIC = 0.7
BRAND_FOLLOWS_TOPIC = 0.5
STYLE_FOLLOWS_TOPIC = 0.5


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Row n is item n. Arrays are (I,) unless said otherwise."""

    item_ids: pa.StringArray
    title: list[str]
    category: np.ndarray
    """Index into `category_names`."""
    category_names: list[str]
    brand: list[str]
    style: list[str]
    size: list[str]
    department: list[str]
    price: np.ndarray
    topic: np.ndarray
    num_topics: int
    topic_popularity: np.ndarray
    """(T,), sums to 1."""
    appeal: np.ndarray
    """Log of how much an item is wanted within its topic."""
    repeatability: np.ndarray
    """Chance that someone who thinks of an item bought before takes it again."""
    first_day: np.ndarray
    """Day number on which the item appears; 0 for those that were always there."""

    @property
    def num_items(self) -> int:
        return len(self.price)

    def table(self, settings: WorldSettings) -> pa.Table:
        """The catalogue in the data contract's columns, with further attribute columns. Topics stay hidden."""
        return pa.table(
            {
                "item_id": self.item_ids,
                "title": self.title,
                "category": [self.category_names[index] for index in self.category],
                "brand": self.brand,
                "price": self.price,
                "department": self.department,
                "style": self.style,
                "size": self.size,
                "available_from": [(settings.start + timedelta(days=int(day))).isoformat() for day in self.first_day],
            }
        )

    def truth(self) -> pa.Table:
        """What the catalogue does not say."""
        return pa.table(
            {
                "item_id": self.item_ids,
                "topic": self.topic.astype(np.int32),
                "appeal": self.appeal,
                "first_day": self.first_day.astype(np.int32),
                "repeatability": self.repeatability,
            }
        )


def make_catalog(settings: WorldSettings) -> Catalog:
    rng = generator(settings, Stream.CATALOG)
    num_items = settings.items
    shelves = [(department, product) for department in departments() for product in department.products]
    num_categories = int(np.clip(num_items // 12, 8, len(shelves)))
    shelves = [shelves[index] for index in rng.permutation(len(shelves))[:num_categories]]
    num_topics = int(np.clip(round(1.4 * num_items**0.5), 4, 2000))
    topic_size = _unequal_shares(rng, num_topics, spread=0.5)
    category_size = _unequal_shares(rng, num_categories, spread=1.1)

    # Every topic has an item from the first day on; the rest fall where the topic's size says.
    topic = rng.choice(num_topics, size=num_items, p=topic_size)
    anchors = rng.permutation(num_items)[:num_topics]
    topic[anchors] = np.arange(num_topics)
    category = _follow(rng, topic, share=CATEGORY_FOLLOWS_TOPIC, own=3, choices=num_categories, weights=category_size)
    num_brands = max(12, num_items // 40)
    brand = _follow(
        rng,
        topic,
        share=BRAND_FOLLOWS_TOPIC,
        own=2,
        choices=num_brands,
        weights=_unequal_shares(rng, num_brands, spread=1),
    )
    names = brand_names(num_brands, rng)
    first_day = _first_days(rng, settings, anchors)
    styles, sizes, titles = _titles(
        rng, [shelves[index] for index in category], topic, [names[index] for index in brand]
    )
    aisles = [shelves[index][0] for index in category]
    return Catalog(
        item_ids=pa.array([f"i{index:07d}" for index in range(num_items)]),
        title=titles,
        category=category,
        category_names=[product for _, product in shelves],
        brand=[names[index] for index in brand],
        style=styles,
        size=sizes,
        department=[aisle.name for aisle in aisles],
        price=_prices(rng, aisles, topic, num_topics),
        topic=topic,
        num_topics=num_topics,
        topic_popularity=_unequal_shares(rng, num_topics, spread=0.4, base=topic_size),
        appeal=rng.normal(size=num_items),
        repeatability=np.array([aisle.repeatability for aisle in aisles], dtype=np.float32),
        first_day=first_day,
    )


def _unequal_shares(
    rng: np.random.Generator, count: int, *, spread: float, base: np.ndarray | None = None
) -> np.ndarray:
    """(count,) shares that sum to 1, lognormal around `base`."""
    weights = np.exp(rng.normal(scale=spread, size=count)) * (1.0 if base is None else base)
    return np.asarray(weights / weights.sum())


def _follow(
    rng: np.random.Generator, topic: np.ndarray, *, share: float, own: int, choices: int, weights: np.ndarray
) -> np.ndarray:
    """(I,) choices: with probability `share` one of the `own` favourites of the item's topic, else any by weight."""
    num_topics = int(topic.max()) + 1
    favourites = rng.choice(choices, size=(num_topics, own), p=weights)
    favourite = favourites[topic, rng.integers(own, size=len(topic))]
    anything = rng.choice(choices, size=len(topic), p=weights)
    return np.where(rng.random(len(topic)) < share, favourite, anything)


def _first_days(rng: np.random.Generator, settings: WorldSettings, anchors: np.ndarray) -> np.ndarray:
    first_day = np.zeros(settings.items, dtype=np.int64)
    if settings.days > 1:
        is_new = rng.random(settings.items) < settings.new_items_share
        is_new[anchors] = False
        first_day[is_new] = rng.integers(1, settings.days, size=int(is_new.sum()))
    return first_day


def _prices(rng: np.random.Generator, aisles: list[Department], topic: np.ndarray, num_topics: int) -> np.ndarray:
    """(I,) in cents' steps: the department's median, the topic's level (cheap or dear tastes), the item's own share."""
    level = rng.normal(scale=0.35, size=num_topics)
    median = np.array([aisle.median_price for aisle in aisles])
    price = median * np.exp(level[topic] + rng.normal(scale=0.35, size=len(topic)))
    return np.asarray(np.maximum(np.round(price, 1) - 0.01, 0.29).round(2))


def _titles(
    rng: np.random.Generator, shelves: list[tuple[Department, str]], topic: np.ndarray, brand: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """Styles, sizes and whole titles of the items: 'Oakfield Smoked Paprika Crisps 150 g'."""
    follows = rng.random(len(shelves)) < STYLE_FOLLOWS_TOPIC
    style_draw, size_draw = rng.integers(1 << 30, size=(2, len(shelves)))
    styles, sizes, titles = [], [], []
    for index, (department, product) in enumerate(shelves):
        chosen = int(topic[index]) if follows[index] else int(style_draw[index])
        style = department.styles[chosen % len(department.styles)]
        size = department.sizes[int(size_draw[index]) % len(department.sizes)]
        styles.append(style)
        sizes.append(size)
        titles.append(f"{brand[index]} {style} {product} {size}")
    return styles, sizes, titles
