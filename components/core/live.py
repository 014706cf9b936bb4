"""What is live: the deploy pointer in the artifact store, and the record of the running service on this machine.

`deploy` moves the pointer, every worker of the service polls it, and a rollback is the same move backwards.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifact import ArtifactRef
from components.core.clock import wall_clock
from components.core.errors import ArtifactError
from components.core.settings import Settings
from components.core.store import Store, write_file_whole

POINTER = "deploy/pointer.json"
# How many bundles before the previous one the pointer remembers.
EARLIER = 8


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pointer(_Record):
    """Which bundle serves, and which ones served before."""

    bundle: ArtifactRef
    previous: ArtifactRef | None = None
    earlier: tuple[ArtifactRef, ...] = ()
    """What served before `previous`, the latest first: a rollback after a rollback goes on from here."""
    moved_at: datetime
    run_id: str


class ServiceRecord(_Record):
    """A running service; `started_at` (see `process_start`) tells its process from a later one with the same pid."""

    host: str
    port: int
    pid: int
    started_at: float
    workers: int
    follows_pointer: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def read_pointer(store: Store) -> Pointer | None:
    """The deploy pointer; None before the first deploy."""
    if not store.exists(POINTER):
        return None
    try:
        return Pointer.model_validate(store.read_json(POINTER))
    except (ValueError, ValidationError) as error:
        raise ArtifactError(f"{store.uri(POINTER)} cannot be read. Deploy again to write it anew.") from error


def move_pointer(store: Store, bundle: ArtifactRef, *, previous: ArtifactRef | None, run_id: str) -> Pointer:
    """Let the service serve `bundle`. Written whole: a worker reads the old pointer or the new one."""
    before = read_pointer(store)
    chain = [before.previous, *before.earlier] if before is not None else []
    gone = {bundle.sha256, previous.sha256 if previous else None}
    earlier = [ref for ref in chain if ref is not None and ref.sha256 not in gone]
    return _write_pointer(store, bundle, previous=previous, earlier=earlier, run_id=run_id)


def move_pointer_back(store: Store, bundle: ArtifactRef, *, without: Collection[str], run_id: str) -> Pointer:
    """Let the service serve an earlier bundle again. What served before it stays known, `without` these hashes."""
    before = read_pointer(store)
    chain = [before.bundle, before.previous, *before.earlier] if before is not None else []
    left = [ref for ref in chain if ref is not None and ref.sha256 not in {bundle.sha256, *without}]
    return _write_pointer(store, bundle, previous=left[0] if left else None, earlier=left[1:], run_id=run_id)


def _write_pointer(
    store: Store, bundle: ArtifactRef, *, previous: ArtifactRef | None, earlier: Sequence[ArtifactRef], run_id: str
) -> Pointer:
    pointer = Pointer(
        bundle=bundle, previous=previous, earlier=tuple(earlier[:EARLIER]), moved_at=wall_clock(), run_id=run_id
    )
    restore_pointer(store, pointer)
    return pointer


def restore_pointer(store: Store, pointer: Pointer | None) -> None:
    """Put a pointer back as it was; None: there was none."""
    if pointer is None:
        store.delete(POINTER)
    else:
        store.write_json(POINTER, pointer.model_dump(mode="json"))


def service_record_path(settings: Settings) -> Path:
    return settings.project_home / "service.json"


def last_service(settings: Settings) -> ServiceRecord | None:
    """What the service started last wrote of itself, alive or not."""
    path = service_record_path(settings)
    try:
        return ServiceRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def find_service(settings: Settings) -> ServiceRecord | None:
    """The running service of this project, or None."""
    record = last_service(settings)
    return record if record is not None and is_alive(record) else None


def process_start(pid: int) -> float:
    """Seconds from the machine's start to the process's; no change of the wall clock moves them.

    Linux reckons a process's start in wall-clock time anew from the present clock: it is another one after each jump.
    Raises OSError where there is no such process.
    """
    # The name, in parentheses, may hold spaces; 'starttime' is field 22, and the fields after the name begin with 3.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")


def is_alive(record: ServiceRecord) -> bool:
    """Whether the very process that wrote the record still runs."""
    try:
        is_zombie = psutil.Process(record.pid).status() == psutil.STATUS_ZOMBIE
        return not is_zombie and process_start(record.pid) == record.started_at
    except (psutil.Error, OSError):
        return False


def write_service_record(settings: Settings, record: ServiceRecord) -> None:
    write_file_whole(service_record_path(settings), record.model_dump_json(indent=1).encode())
