"""A feature store of hand-made rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.core.schemas import ITEM_STATISTICS, USER_HISTORY, USER_STATISTICS
from components.core.settings import Settings, load_settings
from feature_repo.layout import FeastHome
from feature_repo.store import FeatureRepo


def moment(days: float) -> datetime:
    return datetime.fromtimestamp(datetime(2024, 3, 1, tzinfo=UTC).timestamp() + days * 86_400, UTC)


def user_rows(user: str, at: datetime, *, items: Sequence[str], created: datetime | None = None, **figures: Any):
    """A row of USER_HISTORY and one of USER_STATISTICS; each item is a day older than the one before it."""
    keys = {"user_id": user, "event_timestamp": at, "created_timestamp": created or at}
    history = {
        "history_items": list(items),
        "history_weights": [1.5] * len(items),
        "history_ages_days": [float(n) for n in range(len(items))],
        "recent_items": list(items),
        "recent_times": [at] * len(items),
    }
    statistics = {"top_categories": ["tea"] if items else [], "top_category_shares": [1.0] if items else []}
    return keys | history, dict.fromkeys(USER_STATISTICS.names) | keys | statistics | figures


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", project="my-shop")


@pytest.fixture
def repo(settings: Settings) -> FeatureRepo:
    return FeatureRepo(FeastHome.of(settings))


@pytest.fixture
def fill(repo: FeatureRepo) -> Callable[..., None]:
    """fill([rows of user_rows, ...], items=[rows of ITEM_STATISTICS]) replaces the offline files and registers them."""

    def factory(users: Sequence[tuple[dict, dict]], items: Sequence[dict[str, Any]] = ()) -> None:
        rows = [dict.fromkeys(ITEM_STATISTICS.names) | row for row in items]
        repo.write_offline(
            {
                "user_history": pa.Table.from_pylist([history for history, _ in users], schema=USER_HISTORY),
                "user_statistics": pa.Table.from_pylist([figures for _, figures in users], schema=USER_STATISTICS),
                "item_statistics": pa.Table.from_pylist(rows, schema=ITEM_STATISTICS),
            }
        )
        repo.apply()

    return factory


@pytest.fixture
def given():
    """The two makers above, for tests that import nothing from here."""
    return moment, user_rows
