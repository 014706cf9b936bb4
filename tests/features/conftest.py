"""A shop of hand-made rows, as the validate step would leave it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from components.core.artifact import ArtifactRef
from components.core.day_table import DayTable
from components.core.schemas import CATALOG, EVENTS
from components.core.settings import Settings, load_settings
from components.core.step import Step, StepContext, StepReport, execute

Rows = Sequence[dict[str, Any]]


def event_table(rows: Rows) -> pa.Table:
    """Rows need user_id, item_id and timestamp; they are purchases of one unit at no price unless they say more."""
    filled = [
        {"event_id": f"e{n:06d}", "event_type": "purchase", "session_id": None, "quantity": 1.0, "price": None, **row}
        for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=EVENTS)


def catalog_table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(CATALOG.names) | row for row in rows], schema=CATALOG)


def make_clean(settings: Settings, events: Rows, catalog: Rows, as_of: datetime, *, name: str = "given") -> ArtifactRef:
    """A committed artifact of kind 'clean' that holds these rows."""

    def run(context: StepContext) -> StepReport:
        days: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for row in event_table(events).to_pylist():
            days[row["timestamp"].date()].append(row)
        table = DayTable(context.store, "clean_events")
        parts = [table.write_day(day, pa.Table.from_pylist(rows, schema=EVENTS)) for day, rows in sorted(days.items())]
        context.output.partitions.extend(parts)
        context.output.write_table("catalog.parquet", catalog_table(catalog))
        return StepReport(summary="given", rows=len(events), as_of=as_of)

    step = Step(
        name="validate",
        kind="clean",
        inputs=(),
        sections=(),
        rooms=("components.core",),
        run=run,
        fingerprint=lambda _: name,
    )
    return execute(step, settings=settings, inputs={}, run_id="test", as_of=as_of).ref


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
