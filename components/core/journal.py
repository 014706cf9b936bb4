"""What each task of a run did: a small file a task under `runs/` in the artifact store, for `status` and for people."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.store import Store

ROOT = "runs"
MOMENT = "%Y%m%dT%H%M%S%f"
# The task with which a run ends whose model the gate refused.
NOT_PROMOTED = "not_promoted"
TaskState = Literal["done", "reused", "failed"]


class TaskEntry(BaseModel):
    """How one task of a run ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    task: str
    state: TaskState
    summary: str
    """The step's own line, or the sentence of its error."""
    seconds: float
    finished_at: datetime
    why: str | None = None
    """What asked for the run, where somebody said it."""
    place: int = 0
    """How many entries of the run were there before: the order in which tasks ended, whatever the clock did."""


def run_folder(store: Store, *, run_id: str, started_at: datetime) -> str:
    """Folder of a run's entries; names sort in the order in which runs began, also where the clock was set back.

    Some stores refuse the '+' and ':' of Airflow's run ids.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", run_id)
    folders = store.list_dir(ROOT)
    if (known := next((folder for folder in folders if folder.partition("-")[2] == name), None)) is not None:
        return known
    moment = started_at.strftime(MOMENT)
    newest = folders[-1].partition("-")[0] if folders else ""
    if moment <= newest:
        moment = (datetime.strptime(newest, MOMENT) + timedelta(microseconds=1)).strftime(MOMENT)  # noqa: DTZ007  # UTC
    return f"{moment}-{name}"


def write_entry(store: Store, folder: str, entry: TaskEntry) -> None:
    """Put an entry after the run's others; the same task's entry of an earlier try makes room."""
    others = [one.place for one in _read_run(store, folder) if one.task != entry.task]
    placed = entry.model_copy(update={"place": max(others, default=-1) + 1})
    store.write_json(f"{ROOT}/{folder}/{entry.task}.json", placed.model_dump(mode="json"))


def last_runs(store: Store, *, count: int) -> list[Sequence[TaskEntry]]:
    """The entries of the newest runs, newest run first, tasks in the order in which they ended.

    A run whose first entry is just being written has none yet, and is left out."""
    runs = (_read_run(store, folder) for folder in reversed(store.list_dir(ROOT)))
    return list(itertools.islice(filter(None, runs), count))


def _read_run(store: Store, folder: str) -> Sequence[TaskEntry]:
    entries = []
    for name in store.list_dir(f"{ROOT}/{folder}"):
        if name.startswith("."):
            continue  # the part of an entry whose writer was killed
        try:
            entries.append(TaskEntry.model_validate(store.read_json(f"{ROOT}/{folder}/{name}")))
        except (ValueError, ValidationError):
            continue  # written by a later version; the rest can still be shown
    return sorted(entries, key=lambda entry: (entry.place, entry.finished_at))
