"""The real scheduler: an event of the asset `drift` starts a run of `recommender`, which says why in its journal."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from components.core.journal import last_runs
from components.core.settings import load_settings
from components.core.store import Store
from components.orchestration.scheduler import SchedulerRecord, start_scheduler, stop_scheduler

WHY = "drift: sessions 812 above 640"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(record: SchedulerRecord, path: str, body: dict[str, Any] | None = None) -> Any:
    with OPENER.open(f"{record.url}/auth/token", timeout=30) as response:
        token = json.load(response)["access_token"]
    request = urllib.request.Request(
        f"{record.url}/api/v2/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with OPENER.open(request, timeout=30) as response:
        return json.load(response)


def drift_asset(record: SchedulerRecord) -> int | None:
    found = call(record, "assets?limit=100")["assets"]
    return next((one["id"] for one in found if one["uri"] == "basketweave://demo/drift"), None)


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
        deadline = time.monotonic() + 240
        while (asset_id := drift_asset(record)) is None and time.monotonic() < deadline:
            time.sleep(1)
        assert asset_id is not None
        call(record, "assets/events", {"asset_id": asset_id, "extra": {"why": WHY}})
        because: list[str] = []
        while not because and time.monotonic() < deadline:
            time.sleep(1)
            runs = last_runs(Store(settings.artifact_root), count=10)
            because = [entry.why for run in runs for entry in run if entry.task == "ingest" and entry.why]
        assert because == [WHY]
    finally:
        stop_scheduler(settings)
