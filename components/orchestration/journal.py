"""What each task of a run did: a small file a task under `runs/` in the artifact store, for `status` and for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.store import Store

ROOT = "runs"
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


def run_folder(*, run_id: str, started_at: datetime) -> str:
    """Folder of a run's entries; its name sorts by time. Some stores refuse the '+' and ':' of Airflow's run ids."""
    return f"{started_at:%Y%m%dT%H%M%S%f}-{re.sub(r'[^A-Za-z0-9_.-]', '-', run_id)}"


def write_entry(store: Store, folder: str, entry: TaskEntry) -> None:
    store.write_json(f"{ROOT}/{folder}/{entry.task}.json", entry.model_dump(mode="json"))


def last_runs(store: Store, *, count: int) -> list[Sequence[TaskEntry]]:
    """The entries of the newest runs, newest run first, tasks in the order in which they ended."""
    return [_read_run(store, folder) for folder in reversed(store.list_dir(ROOT)[-count:])]


def _read_run(store: Store, folder: str) -> Sequence[TaskEntry]:
    entries = []
    for name in store.list_dir(f"{ROOT}/{folder}"):
        try:
            entries.append(TaskEntry.model_validate(store.read_json(f"{ROOT}/{folder}/{name}")))
        except (ValueError, ValidationError):
            continue  # written by a later version; the rest can still be shown
    return sorted(entries, key=lambda entry: entry.finished_at)
