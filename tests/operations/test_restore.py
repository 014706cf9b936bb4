"""A home is backed up by the documented commands, destroyed and restored; the service answers with the same bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import services
from documented import BASKETWEAVE, run_block, shell_blocks

from components.core.live import read_pointer
from components.core.settings import load_settings
from components.core.store import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = {
    "BASKETWEAVE_SPLIT__WINDOW_DAYS": "14",
    "BASKETWEAVE_SPLIT__TRAINING_WINDOWS": "1",
    "BASKETWEAVE_TRAIN__MAX_EPOCHS": "1",
    "BASKETWEAVE_TRAIN__EMBEDDING_DIM": "16",
    "BASKETWEAVE_EVALUATE__BOOTSTRAP_RESAMPLES": "200",
    "BASKETWEAVE_DEPLOY__START_SERVICE": "false",
}


def test_a_destroyed_home_is_restored_and_answers_with_the_same_bundle(tmp_path: Path) -> None:
    home, world = tmp_path / "home", tmp_path / "world"
    environment = {**os.environ, **SMALL, "BASKETWEAVE_HOME": str(home), "BASKETWEAVE_PROJECT": "shop"}
    environment["PYTHONPATH"] = str(ROOT)
    size = ["--users", "300", "--items", "200", "--days", "60", "--sessions-per-user-day", "0.3", "--seed", "7"]
    python = [sys.executable]
    subprocess.run(
        [*python, "-m", "components.cli", "simulate", "--out", str(world), *size], check=True, env=environment
    )
    log = ["--events", f"{world}/events/*.parquet", "--catalog", f"{world}/catalog.parquet"]
    ran = subprocess.run(
        [*python, str(ROOT / "tests" / "pipeline" / "lenient_run.py"), "run", *log],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr  # 1: nobody starts the service here
    settings = load_settings(home=home, project="shop")
    before = read_pointer(Store(settings.artifact_root))
    assert before is not None
    history = known_user(settings.project_home / "feast" / "online.db")

    keep, put_back, *_ = shell_blocks("backup.md")
    instead = {"basketweave": BASKETWEAVE, "/backups/2024-05-01": str(tmp_path / "backup")}
    run_block(keep, environment=environment, folder=ROOT, instead=instead)
    shutil.rmtree(home)
    run_block(put_back, environment=environment, folder=ROOT, instead=instead, leave_out=["basketweave serve"])

    assert read_pointer(Store(settings.artifact_root)) == before
    port, service_log = services.free_port(), tmp_path / "service.log"
    assert "basketweave serve" in put_back
    command = [*BASKETWEAVE.split(), "serve", "--port", str(port)]
    with services.running(command, log=service_log, environment=environment):
        answer = recommendation(port, history, service_log)
    assert answer["bundle"] == before.bundle.sha256
    assert answer["source"] == "online_store"
    # What is restored is whole: a run finds every step done.
    again = subprocess.run(
        [*python, str(ROOT / "tests" / "pipeline" / "lenient_run.py"), "run", *log],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.stdout.count("reused") >= 6, again.stdout + again.stderr


def known_user(database: Path) -> str:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(database)) as connection:
        [(key,)] = connection.execute("SELECT entity_key FROM basketweave_user_history LIMIT 1").fetchall()
    return bytes(key).partition(b"user_id")[2][8:].decode()


def recommendation(port: int, user_id: str, log: Path) -> dict[str, object]:
    """The service's answer, as soon as it gives one."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/recommend",
        data=json.dumps({"user_id": user_id, "k": 3}).encode(),
        headers={"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except OSError:
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
