"""`basketweave run`: the DAG once, in this process, a line a task, and at the end what the service recommends."""

from __future__ import annotations

import atexit
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from components.cli_showcase import service_answers_with, show_defects, show_people, show_places
from components.core.clock import parse_time
from components.core.errors import BasketweaveError, SettingsError
from components.core.journal import NOT_PROMOTED, TaskEntry
from components.core.progress import Progress as StepProgress
from components.core.settings import Settings, load_settings
from components.orchestration.one_shot import RunOutcome, flush_output, run_once
from components.orchestration.watcher import Watcher

T = TypeVar("T")
DAG_ID = "recommender"
OK, FAILED, EXIT_NOT_PROMOTED = 0, 1, 3
LOG_WIDTH = 160  # columns where the output is no terminal
MARKS = {"done": ("✓", "green"), "reused": ("=", "cyan"), "failed": ("✗", "red")}


def run_settings(
    *, profile: str | None, data: Path | None, events: str | None, catalog: str | None, project: str | None
) -> Settings:
    """The settings of one run: what is given on the command line over what is set."""
    if catalog and not events:
        raise SettingsError("--catalog goes with --events. Give both, or a --profile with --data.")
    if events:
        if profile not in (None, "contract"):
            raise SettingsError("--events is a log in the project's own contract; leave --profile out.")
        profile = "contract"
    source = {"profile": profile, "data": str(data) if data else None, "events": events, "catalog": catalog}
    changes: dict[str, Any] = {
        # Nobody waits for a second try here, and steps run in this process whatever a scheduler would do.
        "orchestration": {"retries": 0, "mode": "in_process"},
        "source": {name: value for name, value in source.items() if value is not None},
    }
    set_project = load_settings().model_fields_set & {"project"}
    if project:
        changes["project"] = project
    elif profile and not set_project:
        # Another log is another shop: it must not swap the demo's service to its own items.
        changes["project"] = "shop" if profile == "contract" else _project_name(profile)
    return load_settings(**changes)


def run_parameters(*, as_of: str | None, day: str | None, why: str | None = None) -> dict[str, str | None]:
    """The DAG's parameters, in the form that its schema takes."""
    if day is not None:
        try:
            day = date.fromisoformat(day).isoformat()
        except ValueError as error:
            raise SettingsError(f"--day '{day}' is not a day. Write an ISO date, such as 2017-12-31.") from error
    asked_for = {} if why is None else {"why": why}
    return {"as_of": parse_time(as_of).isoformat() if as_of else None, "day": day, **asked_for}


def _project_name(profile: str) -> str:
    """A profile's name, or its file's, as a project's name."""
    return re.sub(r"[^a-z0-9_-]+", "-", Path(profile).stem.lower()).strip("-_") or "shop"


def run_pipeline(settings: Settings, *, as_of: str | None, day: str | None, why: str | None = None) -> int:
    """Run the DAG once and say what came of it; returns the exit status."""
    parameters = run_parameters(as_of=as_of, day=day, why=why)
    console = terminal()
    console.print(Text(f"Basketweave · project {settings.project} · {settings.project_home}"), style="dim")
    with RunDisplay(console) as display:
        outcome = run_once(DAG_ID, settings=settings, parameters=parameters, watcher=display)
    atexit.register(_silence_exit, outcome.log)
    return conclude(outcome, settings=settings, console=console)


def conclude(outcome: RunOutcome, *, settings: Settings, console: Console) -> int:
    """What a person reads after the tasks' lines; returns the exit status."""
    if outcome.entry(NOT_PROMOTED) is not None:
        console.print(Text("\nNot promoted. What served before goes on serving.", style="bold yellow"))
        show_places(settings, console=console, deployed=False)
        return EXIT_NOT_PROMOTED
    if not outcome.succeeded:
        failure = outcome.failure
        what = (
            f"{failure.task} failed: {failure.summary.rstrip('.')}." if failure else "The run failed outside its steps."
        )
        raise BasketweaveError(f"{what} The whole log: {outcome.log}")
    if not settings.deploy.start_service:
        console.print(Text("\nThe pointer names this run's bundle; the service is run elsewhere."))
        return OK
    problem = service_answers_with(settings)
    if problem is not None:
        raise BasketweaveError(f"{problem} The whole log: {outcome.log}")
    show_people(settings, console=console)
    show_defects(settings, console=console)
    show_places(settings, console=console, deployed=True)
    return OK


def terminal() -> Console:
    """A console on this process's stdout as it is now, wherever the descriptor is sent later."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    return Console(file=stream, width=None if stream.isatty() else LOG_WIDTH, highlight=False)


class RunDisplay(Watcher):
    """A line a task when it has ended; on a terminal also a moving line for the one that runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            # Or rich would show here what libraries print, which belongs to the log.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.progress = _StepBars(self._bars)

    def __enter__(self) -> RunDisplay:
        self._bars.start()
        self._bars.add_task("starting Airflow", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        self._bars.stop()

    def started(self, task: str) -> None:
        self._clear()
        self._bars.add_task(task, total=None)

    def finished(self, entry: TaskEntry) -> None:
        self._clear()
        self._console.print(task_line(entry))

    def _clear(self) -> None:
        for task_id in self._bars.task_ids:
            self._bars.remove_task(task_id)


class _StepBars(StepProgress):
    """Draws a step's own bars under the line of its task."""

    def __init__(self, bars: Progress) -> None:
        super().__init__(bars.console)
        self._bars = bars

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterable[T]:
        with self._task(description, total) as task_id:
            yield from self._bars.track(items, task_id=task_id, total=total)

    @contextmanager
    def bar(self, description: str, *, total: int) -> Iterator[Callable[[], None]]:
        with self._task(description, total) as task_id:
            yield lambda: self._bars.advance(task_id)

    @contextmanager
    def _task(self, description: str, total: int | None) -> Iterator[TaskID]:
        task_id = self._bars.add_task(description, total=total)
        try:
            yield task_id
        finally:
            if task_id in self._bars.task_ids:
                self._bars.remove_task(task_id)


def task_line(entry: TaskEntry) -> Table:
    """'✓ graph  1.2 M edges …  12.3 s'; long summaries fold under themselves."""
    mark, colour = MARKS[entry.state]
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(width=1)
    line.add_column(width=12)
    line.add_column(ratio=1, overflow="fold")
    line.add_column(justify="right", width=16)
    seconds = f"{entry.seconds:.1f} s"
    line.add_row(
        Text(mark, style=colour),
        Text(entry.task, style="bold"),
        Text(entry.summary),
        Text(f"reused, {seconds}" if entry.state == "reused" else seconds, style="dim"),
    )
    return line


def _silence_exit(log: Path) -> None:
    """Some libraries complain below Python while the process ends; that belongs to the log."""
    flush_output()
    with log.open("ab") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
