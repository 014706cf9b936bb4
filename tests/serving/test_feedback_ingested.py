"""The circle closed: a simulated shop is served, its events come back, and `basketweave step ingest` reads them."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import duckdb
import httpx
import pytest

from components.core.live import find_service
from tests.conftest import PipelineRun

pytestmark = pytest.mark.slow


def test_what_the_service_was_told_is_a_log_that_the_pipeline_ingests(
    pipeline_run: PipelineRun, tmp_path: Path
) -> None:
    record = find_service(pipeline_run.settings)
    assert record is not None
    sent: Counter[tuple[str, str, str]] = Counter()
    with httpx.Client(base_url=record.url, timeout=30, trust_env=False) as service:
        for user in ("u1", "u2", "u3"):
            shown = service.post("/recommend", json={"user_id": user, "k": 5}).json()
            clicked = shown["items"][0]["item_id"]
            on_list = {"user_id": user, "list_id": shown["list_id"]}
            events = [{**on_list, "item_id": item["item_id"], "event_type": "impression"} for item in shown["items"]]
            events.append({**on_list, "item_id": clicked, "event_type": "click", "event_id": f"click-{user}"})
            bought = {"event_type": "purchase", "quantity": 2, "price": 1.5, "session_id": f"s-{user}"}
            events.append({**on_list, "item_id": clicked, **bought})
            for _ in range(2):  # the click is sent again, as after an answer that was lost
                answer = service.post("/events", json={"events": events})
                assert answer.json()["accepted"] == len(events), answer.text
                sent.update((user, one["item_id"], one["event_type"]) for one in events)
                events = [one for one in events if one["event_type"] == "click"]
            following = service.post("/recommend", json={"user_id": user, "k": 20}).json()
            assert clicked not in [item["item_id"] for item in following["items"]]
    for user in ("u1", "u2", "u3"):
        clicks = [key for key in sent if key[0] == user and key[2] == "click"]
        sent[clicks[0]] = 1

    feedback = f"{pipeline_run.settings.artifact_root}/feedback/*/*.jsonl"
    environment = {
        **pipeline_run.environment,
        "BASKETWEAVE_HOME": str(tmp_path / "home"),
        "BASKETWEAVE_PROJECT": "feedback",
        "BASKETWEAVE_SOURCE__PROFILE": "contract",
        "BASKETWEAVE_SOURCE__EVENTS": feedback,
        "BASKETWEAVE_SOURCE__CATALOG": f"{pipeline_run.world}/catalog.parquet",
    }
    command = [pipeline_run.command("--help").args[0], "-m", "components.cli", "step", "ingest"]
    step = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert step.returncode == 0, step.stdout + step.stderr
    assert "24 rows = 21 kept + 3 duplicates + 0 rejected" in step.stdout.replace("\n", " ")
    files = [file for file in Path(tmp_path).rglob("*.parquet") if "user_id" in duckdb.read_parquet(str(file)).columns]
    names = [str(file) for file in files]
    rows = duckdb.read_parquet(names).project("user_id, item_id, event_type").fetchall()
    assert Counter(rows) == sent
