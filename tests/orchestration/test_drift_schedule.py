"""The real scheduler: an event of the asset `drift` starts a run of `recommender`, which says why in its journal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from airflow_api import tell_asset

from components.core.journal import last_runs
from components.core.settings import load_settings
from components.core.store import Store
from components.orchestration.scheduler import start_scheduler, stop_scheduler

WHY = "drift: sessions 812 above 640"


@pytest.mark.slow
def test_drift_starts_a_retrain_whose_journal_says_why(tmp_path: Path) -> None:
    # The log is missing, so each run ends at its first step: the run is there, and says what asked for it.
    settings = load_settings(
        home=tmp_path,
        source={"profile": "contract", "events": str(tmp_path / "missing.parquet")},
        orchestration={"retries": 0, "schedule": "0 0 1 1 *"},
        monitor={"schedule": "0 0 1 1 *"},
    )
    record = start_scheduler(settings)
    try:
        tell_asset(record, "basketweave://demo/drift", extra={"why": WHY})
        deadline = time.monotonic() + 400
        because: list[str] = []
        while not because and time.monotonic() < deadline:
            time.sleep(1)
            runs = last_runs(Store(settings.artifact_root), count=10)
            because = [entry.why for run in runs for entry in run if entry.task == "ingest" and entry.why]
        assert because == [WHY]
    finally:
        stop_scheduler(settings)
