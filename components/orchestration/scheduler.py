"""Airflow's real scheduler and web page on this machine: `airflow standalone`, started, watched and stopped whole.

On SIGTERM `airflow standalone` leaves its children behind, so it gets a session of its own and the whole session is
signalled. A pid alone is never trusted: its start is kept beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import BusyError, StopError
from components.core.live import process_start
from components.core.settings import Settings
from components.core.store import write_file_whole
from components.orchestration.environment import LOOPBACK, airflow_environment

START_SECONDS = 300.0
INTERRUPT_SECONDS = 20.0
TERMINATE_SECONDS = 10.0
PARTS = ("metadatabase", "scheduler", "dag_processor")
# A loopback page is never reached through a proxy, whatever the environment says.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class SchedulerRecord(BaseModel):
    """A running `airflow standalone`; `started_at` tells its process from a later one with the same pid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    started_at: float
    port: int

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"


def home_folder(settings: Settings) -> Path:
    return settings.home.absolute() / "airflow"


def log_path(settings: Settings) -> Path:
    return home_folder(settings) / "standalone.log"


def find_scheduler(settings: Settings) -> SchedulerRecord | None:
    """The Airflow that runs for this home, or None."""
    try:
        record = SchedulerRecord.model_validate_json(_record_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None
    return record if _leader(record) is not None else None


def start_scheduler(
    settings: Settings, *, port: int | None = None, waiting: Callable[[str], None] | None = None
) -> SchedulerRecord:
    """Start Airflow and wait until its parts are healthy. `waiting` hears, now and then, which part is not yet.

    Raises BusyError where one runs already, StopError where it ends or does not come up; then nothing of it is left.
    """
    if (running := find_scheduler(settings)) is not None:
        raise BusyError(f"Airflow runs already at {running.url}. Stop it with: basketweave stop")
    port = port or free_port()
    log = log_path(settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=airflow_environment(settings, home=home_folder(settings)) | _network(port),
            start_new_session=True,
        )
    record = SchedulerRecord(pid=process.pid, started_at=process_start(process.pid), port=port)
    write_file_whole(_record_path(settings), record.model_dump_json().encode())
    try:
        _wait_until_healthy(record, process=process, log=log, waiting=waiting or (lambda part: None))
    except BaseException:
        stop_scheduler(settings)
        process.wait()
        raise
    return record


def stop_scheduler(settings: Settings) -> SchedulerRecord | None:
    """Stop Airflow and every process of its session; returns what was stopped, None where nothing ran."""
    record = find_scheduler(settings)
    if record is None:
        return None
    leader = _leader(record)
    family = [] if leader is None else _session(leader)
    for sent, seconds in (
        (signal.SIGINT, INTERRUPT_SECONDS),
        (signal.SIGTERM, TERMINATE_SECONDS),
        (signal.SIGKILL, 5.0),
    ):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(sent)
        # What was started while the others were ending belongs to the session as well.
        _, family = psutil.wait_procs([*family, *_session_of(record.pid, known=family)], timeout=seconds)
        if not family:
            break
    _record_path(settings).unlink(missing_ok=True)
    return record


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _record_path(settings: Settings) -> Path:
    return home_folder(settings) / "standalone.json"


def _network(port: int) -> dict[str, str]:
    url = f"http://{LOOPBACK}:{port}"
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY"), LOOPBACK, "localhost"]))
    return {
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "4",
        # Airflow's log servers listen on every interface, which cannot be set; free ports at least never collide.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        # The scheduler may start a task before the API server answers; by default a try is lost after 4 seconds.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "30",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }


def _wait_until_healthy(
    record: SchedulerRecord, *, process: subprocess.Popen[bytes], log: Path, waiting: Callable[[str], None]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StopError(f"Airflow ended with status {process.returncode} before it was up. See {log}.")
        missing = _unhealthy_part(record)
        if missing is None:
            return
        waiting(missing)
        time.sleep(0.5)
    raise StopError(f"Airflow was not up within {START_SECONDS:.0f} s. See {log}.")


def _unhealthy_part(record: SchedulerRecord) -> str | None:
    """The first part that does not say that it is well; None: all are."""
    try:
        with _OPENER.open(f"{record.url}/api/v2/monitor/health", timeout=5) as response:
            health = json.load(response)
    except (OSError, ValueError):
        return "api server"
    return next((part for part in PARTS if (health.get(part) or {}).get("status") != "healthy"), None)


def _leader(record: SchedulerRecord) -> psutil.Process | None:
    """The very process that the record is about, if it still runs."""
    try:
        process = psutil.Process(record.pid)
        same = process_start(record.pid) == record.started_at and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return None
    return process if same else None


def _session(leader: psutil.Process) -> list[psutil.Process]:
    family = [leader, *leader.children(recursive=True)]
    return [*family, *_session_of(leader.pid, known=family)]


def _session_of(session_id: int, *, known: list[psutil.Process]) -> list[psutil.Process]:
    """Processes of a session that are not `known`: those whose parent has died are nobody's children."""
    pids = {process.pid for process in known}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid not in pids and os.getsid(process.pid) == session_id:
                found.append(process)
    return found
