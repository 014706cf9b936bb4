"""A pipeline: the DAG around its components, with the schedule and limits that the settings give."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable

from components.core.settings import Settings, load_settings
from components.orchestration.component import asset
from components.orchestration.run_window import run_parameters

# Before any log that we know of. Fixed, or every parse would be another DAG; catch-up is off, so it starts no runs.
START_DATE = datetime(2000, 1, 1, tzinfo=UTC)


# The asset by which drift asks for a run of `recommender`.
DRIFT = "drift"


def pipeline(name: str, *, file: str, doc: str) -> DAG:
    """A DAG to put components in: `with pipeline("recommender", file=__file__, doc=__doc__): ...`.

    It runs on its schedule and whenever drift asks for it.
    """
    settings = load_settings()
    drift = [asset(settings, DRIFT)] if settings.monitor.retrain else []
    return make_dag(name, schedule=schedule(settings.orchestration.schedule, drift), file=file, doc=doc)


def monitoring_pipeline(name: str, *, file: str, doc: str) -> DAG:
    """The same for the DAG that watches: on its own schedule, and after every evaluation of `recommender`."""
    settings = load_settings()
    return make_dag(
        name, schedule=schedule(settings.monitor.schedule, [asset(settings, "evaluation")]), file=file, doc=doc
    )


def schedule(cron: str | None, assets: Sequence[Asset]) -> Any:
    """Airflow's schedule for a cron expression or preset (UTC), or any of the assets, whichever comes."""
    if not assets:
        return cron
    if cron is None:
        return AssetAny(*assets)
    if cron in ("@once", "@continuous"):
        # Nothing to combine with: the one runs at once and never again, the other always.
        return cron
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=AssetAny(*assets))


def make_dag(name: str, *, schedule: Any, file: str, doc: str) -> DAG:
    settings: Settings = load_settings()
    dag = DAG(
        dag_id=name,
        schedule=schedule,
        start_date=START_DATE,
        catchup=False,
        # One run at a time: two trainings would share a GPU, and two deployments a pointer.
        max_active_runs=1,
        params=run_parameters(),
        doc_md=doc,
        description=doc.strip().splitlines()[0],
        tags=["basketweave", settings.project],
    )
    # Airflow would take this very file for the DAG's own.
    dag.fileloc = file
    return dag
