"""Which workers of the service live, and what each answers with: a small file a worker in the artifact store.

So a rollback knows when the last worker has taken it up, on one machine and on many alike.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime, timedelta

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.live import process_start
from components.core.store import Store

WORKERS = "deploy/workers"
HEARTBEAT_SECONDS = 15.0
# A worker of another machine that has been silent for this long is taken for dead; one of this machine is asked for.
SILENCE = timedelta(seconds=4 * HEARTBEAT_SECONDS)


class Presence(BaseModel):
    """What a worker says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    worker: str
    host: str
    pid: int
    started_at: float
    """See `process_start`."""
    bundle: str
    """Content hash of the bundle that it answers with where no rollout says otherwise."""
    rollout: str | None
    """The rollout that it takes part in."""
    seen_at: datetime

    def is_alive(self, now: datetime) -> bool:
        if self.host != socket.gethostname():
            return now - self.seen_at <= SILENCE
        try:
            # A killed worker stays a zombie until its parent looks.
            is_zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return not is_zombie and process_start(self.pid) == self.started_at
        except (psutil.Error, OSError):
            return False


def write_presence(store: Store, presence: Presence) -> None:
    store.write_json(_path(presence.worker), presence.model_dump(mode="json"))


def delete_presence(store: Store, worker: str) -> None:
    store.delete(_path(worker))


def live_workers(store: Store, *, now: datetime) -> Sequence[Presence]:
    """Workers of every machine that follow this store's pointer."""
    found = []
    for name in store.list_dir(WORKERS):
        try:
            presence = Presence.model_validate(store.read_json(f"{WORKERS}/{name}"))
        except (FileNotFoundError, ValueError, ValidationError):
            continue  # it has just left, or was killed as it wrote
        if presence.is_alive(now):
            found.append(presence)
    return found


def sweep_dead(store: Store, *, now: datetime) -> None:
    """Delete what dead workers have left."""
    living = {presence.worker for presence in live_workers(store, now=now)}
    for name in store.list_dir(WORKERS):
        if name.removesuffix(".json") not in living and not name.startswith("."):
            store.delete(f"{WORKERS}/{name}")


def _path(worker: str) -> str:
    return f"{WORKERS}/{worker}.json"
