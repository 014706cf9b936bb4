"""A shop of hand-made rows, as the validate step would leave it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from clean_log import Rows, make_clean

from components.core.artifact import ArtifactRef
from components.core.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", project="my-shop", split={"window_days": 7, "training_windows": 2})


@pytest.fixture
def clean(settings: Settings) -> Callable[..., ArtifactRef]:
    """clean(events, catalog, as_of, name=...) -> reference of a clean artifact in `settings`' store."""

    def factory(events: Rows, catalog: Rows, as_of: datetime, **options: Any) -> ArtifactRef:
        return make_clean(options.pop("settings", settings), events, catalog, as_of, **options)

    return factory


@pytest.fixture
def day() -> Callable[[float], datetime]:
    """day(1.5) is noon of 2 March 2024, UTC: days since 1 March."""

    def at(days: float) -> datetime:
        return datetime.fromtimestamp(datetime(2024, 3, 1, tzinfo=UTC).timestamp() + days * 86_400, UTC)

    return at


@pytest.fixture
def random_rows(day: Callable[[float], datetime]) -> tuple[Rows, Rows]:
    """600 events of 12 users (some anonymous), 25 items and 45 days; times are coarse, so that ties abound."""
    import random

    generator = random.Random(7)
    items = [f"i{n:02d}" for n in range(25)]
    catalog = [
        {
            "item_id": item,
            "category": generator.choice(["tea", "milk", None]),
            "price": generator.choice([1.0, 2.5, None]),
        }
        for item in items[:-3]
    ]
    kinds = ["purchase", "purchase", "purchase", "view", "cart", "impression"]
    events = []
    for _ in range(600):
        user, moment = generator.choice([*(f"u{n:02d}" for n in range(12)), None]), generator.randrange(45 * 4) / 4
        events.append(
            {
                "user_id": user,
                "item_id": generator.choice(items),
                "event_type": generator.choice(kinds),
                "timestamp": day(moment) + timedelta(microseconds=400_000 * generator.randrange(3)),
                # Sessions last two days here, so that moments cut through some of them.
                "session_id": generator.choice([f"s{int(moment) // 2}", None]) if user else f"a{int(moment)}",
                "quantity": generator.choice([1.0, 2.0, None]),
                "price": generator.choice([0.1, 1.99, 3.3, 7.0, None]),
            }
        )
    return events, catalog
