"""A pipeline: the DAG around its components, with the schedule and limits that the settings give."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG

from components.core.settings import load_settings
from components.orchestration.run_window import run_parameters

# Before any log that we know of. Fixed, or every parse would be another DAG; catch-up is off, so it starts no runs.
START_DATE = datetime(2000, 1, 1, tzinfo=UTC)


def pipeline(name: str, *, file: str, doc: str) -> DAG:
    """A DAG to put components in: `with pipeline("recommender", file=__file__, doc=__doc__): ...`."""
    settings = load_settings()
    dag = DAG(
        dag_id=name,
        schedule=settings.orchestration.schedule,
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
