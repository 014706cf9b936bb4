"""One run of a DAG in this process, without a scheduler: `basketweave run`.

The same DAG, tasks and gates as under the scheduler. Everything that libraries print goes to a log file, down to the
file descriptors, since some write below Python.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from components.core.clock import wall_clock
from components.core.errors import StopError
from components.core.journal import TaskEntry
from components.core.settings import Settings
from components.core.store import Store
from components.orchestration.environment import airflow_environment, dags_folder, enter
from components.orchestration.watcher import Watcher, watching

logger = logging.getLogger(__name__)

# Written when the database is whole; names the Airflow that made it.
DATABASE_MARK = "database-version"


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run went."""

    run_id: str
    succeeded: bool
    entries: Sequence[TaskEntry]
    log: Path

    @property
    def failure(self) -> TaskEntry | None:
        """The first task that failed, if one of ours did."""
        return next((entry for entry in self.entries if entry.state == "failed"), None)

    def entry(self, task: str) -> TaskEntry | None:
        return next((entry for entry in self.entries if entry.task == task), None)


class _Collector(Watcher):
    """Keeps the entries and passes everything on."""

    def __init__(self, watcher: Watcher) -> None:
        self.entries: list[TaskEntry] = []
        self.progress = watcher.progress
        self._watcher = watcher

    def started(self, task: str) -> None:
        # Airflow lets a task in this process live on after SIGTERM; a person's or a CI's `kill` must end the run.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)
        self._watcher.started(task)

    def finished(self, entry: TaskEntry) -> None:
        self.entries.append(entry)
        self._watcher.finished(entry)


def run_once(
    dag_id: str, *, settings: Settings, parameters: dict[str, Any], watcher: Watcher, log: Path | None = None
) -> RunOutcome:
    """Run a DAG to its end and say how it went. A second run of the project meanwhile raises BusyError.

    Must be called before anything in this process imports airflow: it reads its environment then.
    """
    log = log or settings.project_home / "logs" / f"run-{wall_clock():%Y%m%dT%H%M%S}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with Store(settings.artifact_root).lock("run", doing=f"running the pipeline of project '{settings.project}'"):
        # A database of its own: a scheduler on the same one would take the run over.
        home = settings.home.absolute() / "airflow" / "once"
        enter(airflow_environment(settings, home=home))
        collector = _Collector(watcher)
        with output_to(log), watching(collector):
            _make_database(home)
            dag_run = _dag(dag_id).test(logical_date=None, run_conf=parameters)
    return RunOutcome(run_id=dag_run.run_id, succeeded=dag_run.state == "success", entries=collector.entries, log=log)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _make_database(home: Path) -> None:
    from airflow import __version__
    from airflow.utils.db import initdb

    mark = home / DATABASE_MARK
    if mark.exists() and mark.read_text() == __version__:
        return
    # A half-made database, or an older Airflow's: nothing in it is worth a migration.
    for old in home.glob("airflow.db*"):
        old.unlink()
    initdb()
    mark.write_text(__version__)


def _dag(dag_id: str) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(dags_folder()))
    if dag_id not in bag.dags:
        problems = "; ".join(str(error).strip().splitlines()[-1] for error in bag.import_errors.values())
        raise StopError(f"The DAG '{dag_id}' cannot be loaded from {dags_folder()}: {problems or 'it is not there'}.")
    return bag.dags[dag_id]


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send this process's stdout and stderr to `log`, descriptors included, and take them back afterwards."""
    flush_output()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with log.open("ab") as stream:
            for descriptor in (1, 2):
                os.dup2(stream.fileno(), descriptor)
        yield
    finally:
        flush_output()
        for copy, descriptor in zip(kept, (1, 2), strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):
            stream.flush()
