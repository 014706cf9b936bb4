"""The service as a process of this machine: start, find, stop. A pid alone is never trusted: its start time is kept."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from components.core.errors import StopError
from components.core.live import ServiceRecord, find_service, is_alive
from components.core.settings import Settings, child_environment

STOP_SECONDS = 15.0
START_SECONDS = 30.0


def log_path(settings: Settings) -> Path:
    return settings.project_home / "service.log"


def start_service(settings: Settings) -> ServiceRecord:
    """Start the service detached, following the deploy pointer, and wait until it says where it is.

    It outlives the caller: a session of its own, its output in `service.log`. Raises StopError with the log's last
    line where it ends at once.
    """
    log = log_path(settings)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = child_environment(settings)
    root = _package_root()
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = find_service(settings)
        if record is not None:
            return record
        if process.poll() is not None:
            raise StopError(f"The service ended at once: {last_line(log)} See {log}.")
        time.sleep(0.05)
    stop_tree(psutil.Process(process.pid))
    raise StopError(f"The service did not start within {START_SECONDS:.0f} s. See {log}.")


def stop_service(settings: Settings) -> ServiceRecord | None:
    """Stop the project's service; returns what was stopped, None where nothing ran."""
    record = find_service(settings)
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
    except psutil.NoSuchProcess:
        return None
    if is_alive(record):  # again, now that the handle is held: psutil refuses to signal a reused pid
        stop_tree(process)
    return record


def stop_tree(process: psutil.Process) -> None:
    """SIGTERM to the arbiter, which lets its workers finish; SIGKILL to whatever is left after a while."""
    try:
        family = [process, *process.children(recursive=True)]
        process.terminate()
    except psutil.NoSuchProcess:
        return
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for one in left:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def last_line(log: Path) -> str:
    """The last line that says something, for an error's sentence."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")


def _package_root() -> str:
    """Where the package `serving` lies, so that the child finds the same one wherever it was imported from."""
    spec = importlib.util.find_spec("serving")
    if spec is None or spec.origin is None:
        raise StopError("The package 'serving' is not installed. Run: pip install 'basketweave[serve]'")
    return str(Path(spec.origin).parent.parent)
