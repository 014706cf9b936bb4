"""The process of a rollout's DAG is killed in mid-canary; the next run goes on from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from staged_shop import champion_and_challenger, counted, observe, staged

from components.core.live import read_pointer
from components.core.rollout import read_rollout
from components.core.settings import child_environment, load_settings
from components.core.store import Store
from components.deploy.rollout_record import read_record

pytestmark = pytest.mark.slow

RUN = """
import sys
from components.core.settings import load_settings
from components.orchestration.one_shot import run_once
from components.orchestration.watcher import Watcher
sys.exit(not run_once("rollout", settings=load_settings(), parameters={}, watcher=Watcher()).succeeded)
"""


def until(condition: Callable[[], bool], *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_rollout_whose_process_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.deploy.step.check_golden", lambda bundle, *, cache: None)
    settings = staged(load_settings(home=tmp_path, deploy={"start_service": False}))
    store = Store(settings.artifact_root)
    _, challenger = champion_and_challenger(settings)
    environment = {**os.environ, **child_environment(settings)}
    environment["BASKETWEAVE_ORCHESTRATION"] = json.dumps({"retries": 0})
    enough = {arm: counted(requests=500) for arm in ("challenger", "control", "champion")}
    answers = {"shadow": enough, "canary-10": enough}  # in the second canary stage nobody asks yet
    has_ended = threading.Event()

    def serve() -> None:
        while not has_ended.wait(0.05):
            if (rollout := read_rollout(store)) is not None and rollout.step in answers:
                observe(settings, rollout.step, answers[rollout.step])

    service = threading.Thread(target=serve)
    service.start()
    try:
        first = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.DEVNULL)
        until(lambda: (rollout := read_rollout(store)) is not None and rollout.step == "canary-50")
        first.kill()
        first.wait()
        killed = read_rollout(store)
        assert killed is not None
        answers |= {"canary-50": enough, "watch": enough}
        again = subprocess.run(
            [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        has_ended.set()
        service.join()
    assert again.returncode == 0, again.stderr[-2000:]
    record = read_record(store, killed.id)
    assert record.outcome == "promoted"
    begun = [one.text for one in record.happenings if one.text.endswith("begins")]
    assert begun == ["canary-10 begins", "canary-50 begins"]  # each once, and with the arms that were drawn
    pointer = read_pointer(store)
    assert pointer is not None
    assert pointer.bundle.sha256 == challenger.content_sha256
    assert read_rollout(store) is None
