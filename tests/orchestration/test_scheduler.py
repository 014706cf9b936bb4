"""The real `airflow standalone`: started healthy, one task run by its scheduler, stopped with nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from components.core.errors import BusyError
from components.core.journal import last_runs
from components.core.live import process_start
from components.core.settings import Settings, load_settings
from components.core.store import Store, write_file_whole
from components.orchestration.scheduler import SchedulerRecord, find_scheduler, start_scheduler, stop_scheduler


def members(session: int) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.info["cmdline"] or []))
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def record_of(process: subprocess.Popen[bytes], *, started_at: float, home: Path) -> Settings:
    record = SchedulerRecord(pid=process.pid, started_at=started_at, port=1)
    write_file_whole(home / "airflow" / "standalone.json", record.model_dump_json().encode())
    return load_settings(home=home)


def test_a_later_process_with_the_same_pid_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        started_at = process_start(bystander.pid)
        settings = record_of(bystander, started_at=started_at - 100, home=tmp_path)
        assert find_scheduler(settings) is None
        assert stop_scheduler(settings) is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


STUBBORN = """
import signal, subprocess, sys, time
if sys.argv[1:] == ["child"]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
else:
    subprocess.Popen([sys.executable, __file__, "child"])
print("up", flush=True)
time.sleep(60)
"""


def test_stopping_ends_the_whole_session_also_children_that_outlive_their_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.orchestration.scheduler.INTERRUPT_SECONDS", 1.0)
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    leader = subprocess.Popen([sys.executable, str(script)], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    assert [leader.stdout.readline() for _ in range(2)] == [b"up\n", b"up\n"]
    settings = record_of(leader, started_at=process_start(leader.pid), home=tmp_path)
    stopped = stop_scheduler(settings)
    leader.wait()
    assert stopped is not None
    assert members(leader.pid) == []
    assert find_scheduler(settings) is None


@pytest.mark.slow
def test_the_real_scheduler_runs_a_task_and_leaves_no_orphan(tmp_path: Path) -> None:
    # The log is missing, so that the run of the schedule ends at its first step, with our sentence in the journal.
    settings = load_settings(
        home=tmp_path,
        source={"profile": "contract", "events": str(tmp_path / "missing.parquet")},
        orchestration={"retries": 0},
    )
    record = start_scheduler(settings)
    try:
        with pytest.raises(BusyError, match=record.url):
            start_scheduler(settings)
        assert len(members(record.pid)) > 4
        deadline = time.monotonic() + 400
        while not (runs := last_runs(Store(settings.artifact_root), count=1)) and time.monotonic() < deadline:
            time.sleep(1)
        (entry,) = runs[0]
        assert (entry.task, entry.state) == ("ingest", "failed")
        assert "missing.parquet" in entry.summary
    finally:
        stop_scheduler(settings)
    assert members(record.pid) == []
