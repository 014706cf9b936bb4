"""A shop in which twenty people take random things, as the inputs of the train step: small, and never empty."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hand_made_inputs import inputs_of_training

from components.core.artifact import ArtifactRef
from components.core.settings import Settings, load_settings

AS_OF = datetime(2024, 3, 29, tzinfo=UTC)
USERS, ITEMS = [f"u{n:02d}" for n in range(20)], [f"i{n:02d}" for n in range(25)]
CATALOG = [{"item_id": item, "category": "abc"[n % 3]} for n, item in enumerate(ITEMS)]


def settings_in(home: Path, **train: Any) -> Settings:
    return load_settings(
        home=home,
        split={"window_days": 7, "training_windows": 2},
        graph={"min_item_users": 1, "price_bands": 2},
        train={"embedding_dim": 8, "max_epochs": 4, "patience": 4, "batch_users": 7, "precision": "float32"} | train,
    )


def random_log(*, days: int = 60, until: datetime = AS_OF) -> list[dict[str, Any]]:
    """300 sessions; the same for the same `days`."""
    draw = random.Random(3)
    rows = []
    for number in range(300):
        user, start = draw.choice(USERS), AS_OF - timedelta(days=draw.uniform(0, days))
        for item in draw.sample(ITEMS, draw.randint(1, 4)):
            moment = start + timedelta(hours=draw.uniform(0, 9))
            row = {"user_id": user, "session_id": f"s{number}", "item_id": item, "timestamp": moment}
            rows.append({**row, "price": draw.choice([1.0, 2.0, 5.0])})
    return [row for row in rows if row["timestamp"] < until]


def inputs(settings: Settings) -> dict[str, ArtifactRef]:
    return inputs_of_training(settings, random_log(), CATALOG, AS_OF)
