"""Backup and restore of a project: its artifacts and pointers, and the databases of its home.

The pointers are copied first: what they name is there already, and the artifacts that follow are never changed.
Databases are copied by SQLite itself, so that a writer does no harm. `backup.json`, written last, names every file with
its hash; a restore checks all of them before it writes the first, and moves the deploy pointer last.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifact import FileEntry
from components.core.clock import wall_clock
from components.core.errors import ArtifactError
from components.core.hashing import file_sha256
from components.core.live import POINTER
from components.core.settings import Settings
from components.core.store import Store

MARK = "backup.json"
FORMAT_VERSION = 1
# What is made anew, belongs to a run that is under way, or to a service that runs.
NOT_IN_STORE = (".staging/", ".unfinished/", "locks/")
NOT_IN_HOME = ("artifacts/", "bundles/", "logs/", "service/", "service.json", "service.log")
SQLITE_HEADER = b"SQLite format 3\x00"
SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")


class Backup(BaseModel):
    """What `backup.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    project: str
    artifact_root: str
    """Artifacts hold their own addresses, so they are restored to where they were."""
    made_at: datetime
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class Copied:
    """What a backup or a restore copied."""

    files: int
    size_bytes: int


def backup(settings: Settings, folder: str) -> Copied:
    """Copy the project into an empty folder (a path or an fsspec URI); raises ArtifactError where it is not empty."""
    source, target = Store(settings.artifact_root), Store(folder)
    if target.list_dir(""):
        raise ArtifactError(f"{folder} is not empty. Give each backup a folder of its own.")
    if not source.exists(""):
        raise ArtifactError(f"There is nothing under {source.root} to back up. Check the settings home and project.")
    names = sorted(source.list_files(""), key=lambda name: (not name.startswith("deploy/"), name))
    entries = []
    with tempfile.TemporaryDirectory(prefix="basketweave-backup-") as temporary:
        part = Path(temporary) / "part"
        for name in names:
            if name.startswith(NOT_IN_STORE):
                continue
            source.copy_out(name, part)
            entries.append(_put(target, part, f"artifacts/{name}"))
        for path, name in _of_home(settings):
            _copy_whole(path, part)
            entries.append(_put(target, part, f"home/{name}"))
    whole = Backup(project=settings.project, artifact_root=source.root, made_at=wall_clock(), files=tuple(entries))
    target.write_json(MARK, whole.model_dump(mode="json"))
    return _sum(whole)


def restore(settings: Settings, folder: str) -> Copied:
    """Put a backup back; raises ArtifactError where it is not whole, is another project's, or something is there."""
    source, target = Store(folder), Store(settings.artifact_root)
    whole = _read(source)
    if (whole.project, whole.artifact_root) != (settings.project, target.root):
        raise ArtifactError(
            f"{folder} is a backup of project '{whole.project}' under {whole.artifact_root}, and this is "
            f"'{settings.project}' under {target.root}. Set project, home and storage_root as they were."
        )
    of_home = [entry for entry in whole.files if entry.path.startswith("home/")]
    there = [str(path) for entry in of_home if (path := _home_path(settings, entry)).exists()]
    there += [target.uri(POINTER)] if target.exists(POINTER) else []
    if there:
        raise ArtifactError(f"{there[0]} is there already. Restore where nothing is, or move it away first.")
    with tempfile.TemporaryDirectory(prefix="basketweave-restore-") as temporary:
        checked = Store(folder, cache=Path(temporary))
        for entry in whole.files:
            checked.fetch(entry.path, sha256=entry.sha256)
        for entry in whole.files:
            local = checked.fetch(entry.path, sha256=entry.sha256)
            if entry in of_home:
                path = _home_path(settings, entry)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(local, path)
            elif entry.path != f"artifacts/{POINTER}":
                target.put_copy(local, entry.path.removeprefix("artifacts/"))
        if any(entry.path == f"artifacts/{POINTER}" for entry in whole.files):
            target.write_json(POINTER, source.read_json(f"artifacts/{POINTER}"))
    return _sum(whole)


def _read(source: Store) -> Backup:
    if not source.exists(MARK):
        raise ArtifactError(f"{source.root} is no whole backup: it has no {MARK}.")
    try:
        return Backup.model_validate(source.read_json(MARK))
    except (ValueError, ValidationError) as error:
        raise ArtifactError(f"{source.uri(MARK)} cannot be read, so nothing was restored.") from error


def _put(target: Store, part: Path, name: str) -> FileEntry:
    entry = FileEntry(path=name, sha256=file_sha256(part), size_bytes=part.stat().st_size)
    target.put_copy(part, name)
    return entry


def _home_path(settings: Settings, entry: FileEntry) -> Path:
    return settings.home.absolute() / entry.path.removeprefix("home/")


def _of_home(settings: Settings) -> Iterator[tuple[Path, str]]:
    """(path, name below home) of the databases and of the project's other files."""
    home, project = settings.home.absolute(), settings.project_home
    found = sorted(path for path in project.rglob("*") if path.is_file()) if project.is_dir() else []
    for path in [home / "mlflow.db", *found]:
        of_project = path.relative_to(project).as_posix() if path.is_relative_to(project) else ""
        is_left_out = of_project.startswith(NOT_IN_HOME) or path.name.endswith((*SQLITE_COMPANIONS, ".lock"))
        if path.is_file() and not is_left_out:
            yield path, path.relative_to(home).as_posix()


def _copy_whole(path: Path, target: Path) -> None:
    """Copy a file; a database by its own means, with what is not yet folded into its file."""
    target.unlink(missing_ok=True)
    with path.open("rb") as stream:
        is_database = stream.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    if not is_database:
        shutil.copyfile(path, target)
        return
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def _sum(whole: Backup) -> Copied:
    return Copied(files=len(whole.files), size_bytes=sum(entry.size_bytes for entry in whole.files))
