"""The command, as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def run(shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "BASKETWEAVE_HOME": str(shop.folder / "home")}
    environment |= {f"BASKETWEAVE_SOURCE__{key.upper()}": str(value) for key, value in shop.source.items()}
    return subprocess.run(
        [sys.executable, "-m", "components.ingest", *arguments], env=environment, capture_output=True, text=True
    )


def test_the_command_prints_the_rows_law_and_writes_the_reference(shop):
    shop.log("user_id,item_id,event_type,timestamp\nu1,a,view,2024-05-01\nu1,a,view,2024-05-01\nu1,,view,2024-05-01\n")
    done = run(shop, "--result", str(shop.folder / "ref.json"))
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()).startswith(
        "ingest 3 rows = 1 kept + 1 duplicates + 1 rejected · 1 days · no catalogue"
    )
    assert json.loads((shop.folder / "ref.json").read_text())["kind"] == "events"


def test_a_mistake_is_one_sentence_and_exit_status_1(shop):
    shop.log("user_id,item_id,event_type\nu1,a,view\n")
    done = run(shop)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "has no column 'timestamp'" in done.stderr


def test_a_day_that_is_no_date_is_one_sentence(shop):
    shop.log("user_id,item_id,event_type,timestamp\nu1,a,view,2024-05-01\n")
    done = run(shop, "--day", "monday")
    assert done.returncode == 1
    assert "Write it as 2017-12-31" in done.stderr
