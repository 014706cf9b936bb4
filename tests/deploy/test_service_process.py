"""Starting and stopping the service's process, without waiting for a bundle."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from components.core.errors import StopError
from components.core.live import ServiceRecord, find_service, process_start, write_service_record
from components.core.settings import Settings, load_settings
from components.deploy.probe import ServiceClient, local_url, wait_until_ready
from components.deploy.service_process import last_line, start_service, stop_service


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    """A process with a child, standing in for an arbiter with a worker."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = subprocess.Popen([sys.executable, "-c", script])
    handle = psutil.Process(process.pid)
    while not handle.children():
        pass
    yield handle
    for one in [*handle.children(), handle] if handle.is_running() else []:
        one.kill()
    process.wait()


def has_ended(process: psutil.Process) -> bool:
    """Gone, or waiting for its adoptive parent to notice."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def record_of(process: psutil.Process, *, late_by: float = 0) -> ServiceRecord:
    return ServiceRecord(
        host="127.0.0.1",
        port=1,
        pid=process.pid,
        started_at=process_start(process.pid) - late_by,
        workers=1,
        follows_pointer=True,
    )


def test_stop_ends_the_process_and_whatever_its_workers_are_at(
    settings: Settings, sleeper: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.deploy.service_process.STOP_SECONDS", 0.3)  # this child is told by nobody
    child = sleeper.children()[0]
    write_service_record(settings, record_of(sleeper))
    stopped = stop_service(settings)
    assert stopped is not None
    assert stopped.pid == sleeper.pid
    assert has_ended(child)
    assert find_service(settings) is None
    assert stop_service(settings) is None


def test_stop_leaves_another_process_with_the_same_pid_alone(settings: Settings, sleeper: psutil.Process) -> None:
    write_service_record(settings, record_of(sleeper, late_by=60))
    assert stop_service(settings) is None
    assert sleeper.is_running()


def test_a_service_that_ends_at_once_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = load_settings(home=tmp_path, deploy={"port": other.getsockname()[1]})
        with pytest.raises(StopError, match=r"ended at once: .*Port \d+ of 127\.0\.0\.1 is taken"):
            start_service(settings)
    assert find_service(settings) is None


def test_waiting_ends_when_the_service_does_or_when_time_is_up(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    client = ServiceClient(settings, record_of(psutil.Process()).model_copy(update={"port": port}))
    with pytest.raises(StopError, match="ended before it answered"):
        wait_until_ready(client, sha256="a", workers=1, timeout_seconds=5, still_runs=lambda: False)
    with pytest.raises(StopError, match=r"did not take up the bundle in 0 s: it does not answer"):
        wait_until_ready(client, sha256="a", workers=1, timeout_seconds=0.3, still_runs=lambda: True)


def test_a_service_that_listens_everywhere_is_asked_on_loopback() -> None:
    record = record_of(psutil.Process())
    assert local_url(record.model_copy(update={"host": "0.0.0.0"})) == "http://127.0.0.1:1"
    assert local_url(record.model_copy(update={"host": "::"})) == "http://[::1]:1"
    assert local_url(record.model_copy(update={"host": "10.0.0.7"})) == "http://10.0.0.7:1"


def test_the_last_line_of_a_log_skips_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("first\nlast\n\n")
    assert last_line(tmp_path / "log") == "last"
    assert last_line(tmp_path / "none") == ""
