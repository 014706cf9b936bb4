"""A shop of hand-made rows as the validate step would leave it: shared by the tests of the steps that read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from components.core.artifact import ArtifactRef
from components.core.day_table import DayTable
from components.core.schemas import CATALOG, EVENTS, events_schema
from components.core.settings import Settings
from components.core.step import Step, StepContext, StepReport, execute

Rows = Sequence[dict[str, Any]]


def event_table(rows: Rows) -> pa.Table:
    """Rows need user_id, item_id and timestamp; they are purchases of one unit at no price unless they say more."""
    filled = [
        {"event_id": f"e{n:06d}", "event_type": "purchase", "session_id": None, "quantity": 1.0, "price": None, **row}
        for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(filled, schema=events_schema({name for row in filled for name in row}))


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
