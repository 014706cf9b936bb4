"""Which moment a run is about, and the parameters by which a person says it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from components.core.clock import as_utc
from components.core.settings import Settings

TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$"
DAY_PATTERN = r"^\d{4}-\d{2}-\d{2}$"


def run_parameters() -> dict[str, Any]:
    """Parameters of a pipeline's runs, with the JSON schema that Airflow holds them to."""
    from airflow.sdk import Param

    return {
        "as_of": Param(
            None,
            type=["null", "string"],
            pattern=TIME_PATTERN,
            title="As of",
            description="Judge time as of this moment (ISO, UTC). Empty: the end of the log's last day, or the "
            "moment of the schedule, as the setting orchestration.as_of says.",
        ),
        "day": Param(
            None,
            type=["null", "string"],
            pattern=DAY_PATTERN,
            title="Day",
            description="Ingest this day alone (ISO date) and keep the others as they are. Empty: the whole log.",
        ),
        "why": Param(
            None,
            type=["null", "string"],
            maxLength=500,
            title="Why",
            description="What asked for the run, such as an alert; kept in the run's journal.",
        ),
    }


def run_as_of(dag_run: Any, settings: Settings) -> datetime | None:
    """The moment a run is judged as of where nobody has said it; None: the log's own end.

    Manual and asset-triggered runs have no logical date: theirs is when they were asked for.
    """
    if is_backfill(dag_run) or (settings.orchestration.as_of == "schedule"):
        return as_utc(dag_run.logical_date or dag_run.run_after)
    return None


def why_of(dag_run: Any) -> str | None:
    """What asked for the run: the person or alert that started it, or the drift whose asset event did."""
    given = (dag_run.conf or {}).get("why")
    events = getattr(dag_run, "consumed_asset_events", None) or []
    return given or next((event.extra["why"] for event in events if (event.extra or {}).get("why")), None)


def is_backfill(dag_run: Any) -> bool:
    return str(getattr(dag_run.run_type, "value", dag_run.run_type)) == "backfill"
