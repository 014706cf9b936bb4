"""Where artifacts and pointers live: one folder, or one bucket prefix, behind fsspec.

Writing is all or nothing. A local folder is staged beside its place, flushed to disk and renamed; on an object store,
where a move is a copy and a delete, files are put in place and the manifest last, as the commit mark.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import fsspec
from fsspec.implementations.local import LocalFileSystem

from components.core.errors import ArtifactError, BusyError
from components.core.hashing import file_sha256
from components.core.lease import LeaseTakenError, held

STAGING = ".staging"


class Store:
    """A root under which paths are relative and use '/'."""

    def __init__(self, root: str, *, cache: Path | None = None) -> None:
        """`cache` keeps local copies of remote files, by content hash; None: a folder of the user's temp dir."""
        # A listing kept in memory would hide what another process has written since.
        self.fs, self.base = fsspec.core.url_to_fs(root, use_listings_cache=False)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self._cache = cache or Path(tempfile.gettempdir()) / f"basketweave-cache-{os.getuid()}"

    def path(self, relative: str) -> str:
        return f"{self.base}/{relative}"

    def uri(self, relative: str) -> str:
        return f"{self.root}/{relative}"

    def relative(self, uri: str) -> str:
        prefix = f"{self.root}/"
        if not uri.startswith(prefix):
            raise ArtifactError(
                f"{uri} is not under the artifact root {self.root}. Set storage_root to where it lives."
            )
        return uri.removeprefix(prefix)

    def exists(self, relative: str) -> bool:
        return bool(self.fs.exists(self.path(relative)))

    def read_json(self, relative: str) -> Any:
        # One request: opened and then read, an object could be replaced in between and end in its middle.
        return json.loads(self.fs.cat_file(self.path(relative)))

    def write_json(self, relative: str, value: Any) -> None:
        """Replace a small file whole: a reader sees the old or the new, never a part."""
        data = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, default=str).encode()
        self.write_bytes(relative, data)

    def write_bytes(self, relative: str, data: bytes) -> None:
        """Replace a small file whole, as `write_json` does."""
        if self.is_local:
            write_file_whole(Path(self.path(relative)), data)
        else:
            self.fs.pipe_file(self.path(relative), data)

    def list_dir(self, relative: str) -> list[str]:
        """Names in a folder, sorted; empty where there is none."""
        if not self.exists(relative):
            return []
        folder = self.path(relative).rstrip("/")
        entries = {entry.rstrip("/") for entry in self.fs.ls(folder, detail=False)}
        # Some object stores list an emptied folder as an entry of itself.
        return sorted(entry.rsplit("/", 1)[-1] for entry in entries if entry != folder)

    def list_files(self, relative: str) -> list[str]:
        """Paths of all files in a folder and below it, sorted, relative to the root."""
        if not self.exists(relative):
            return []
        found = self.fs.find(self.path(relative).rstrip("/"))
        return sorted(path.removeprefix(f"{self.base}/") for path in found)

    def copy_out(self, relative: str, local: Path) -> None:
        """Copy a file's present bytes to a local path, whatever its hash."""
        self.fs.get_file(self.path(relative), str(local))

    def put_copy(self, local: Path, relative: str) -> None:
        """As `put_file`, and the local file stays."""
        target = self.path(relative)
        if self.is_local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.fs.put_file(str(local), target)

    def fetch(self, relative: str, *, sha256: str) -> Path:
        """A local path with the file's bytes, after its hash was checked."""
        if self.is_local:
            local = Path(self.path(relative))
            if not local.is_file():
                raise ArtifactError(f"{local} is missing. Run the step that makes it again.")
        else:
            local = self._cache / sha256[:2] / sha256 / relative.rsplit("/", 1)[-1]
            if not local.is_file():
                local.parent.mkdir(parents=True, exist_ok=True)
                part = local.with_name(f"{local.name}.{uuid.uuid4().hex}.part")
                try:
                    self.fs.get_file(self.path(relative), str(part))
                    part.replace(local)
                except FileNotFoundError as error:
                    raise ArtifactError(
                        f"{self.uri(relative)} is missing. Run the step that makes it again."
                    ) from error
                finally:
                    part.unlink(missing_ok=True)
        if file_sha256(local) != sha256:
            if not self.is_local:
                local.unlink()
            raise ArtifactError(
                f"{self.uri(relative)} is not what was written (its hash differs). Delete its folder and run again."
            )
        return local

    def holds(self, relative: str, *, sha256: str) -> bool:
        """Whether the file is there with these very bytes; on an object store False, where it costs as much to put."""
        local = Path(self.path(relative))
        return self.is_local and local.is_file() and file_sha256(local) == sha256

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty local folder, gone afterwards unless it was committed. On the store's own disk where it is local."""
        if self.is_local:
            folder, held = _claim_staging(Path(self.path(STAGING)))
        else:
            folder, held = Path(tempfile.mkdtemp(prefix="basketweave-")), None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if held is not None:
                os.close(held)

    def commit_folder(self, staged: Path, relative: str, *, last: str) -> None:
        """Publish a staged folder; the file named `last` is its commit mark. A folder already there is kept."""
        if self.is_local:
            for file in staged.rglob("*"):
                if file.is_file():
                    _flush(file)
            target = Path(self.path(relative))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not (target / last).exists():
                shutil.rmtree(target)  # what a copy by hand or an older crash left without its commit mark
            try:
                staged.rename(target)
            except OSError:
                if not (target / last).exists():
                    raise
            _flush(target.parent)
            return
        files = sorted(file for file in staged.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: file.name == last):
            self.fs.put_file(str(file), self.path(f"{relative}/{file.relative_to(staged).as_posix()}"))

    def put_file(self, local: Path, relative: str) -> None:
        """Publish one file whole, moving it where the store is local."""
        if self.is_local:
            _flush(local)
            target = Path(self.path(relative))
            target.parent.mkdir(parents=True, exist_ok=True)
            local.replace(target)
        else:
            self.fs.put_file(str(local), self.path(relative))

    def delete(self, relative: str) -> None:
        if self.exists(relative):
            self.fs.rm(self.path(relative), recursive=True)

    @contextmanager
    def lock(self, name: str, *, doing: str, timeout_seconds: float = 0) -> Iterator[None]:
        """Keep a second writer out. The kernel frees a local lock when its holder dies, however it dies; on S3 it is
        a lease, free a minute after its holder's death (components/core/lease.py).

        Other object stores have no lock: writers there are kept apart by Airflow's max_active_runs.
        """
        if not self.is_local:
            if "s3" not in self.fs.protocol:
                yield
                return
            try:
                with held(self.fs, self.path(f"locks/{name}.json"), timeout_seconds=timeout_seconds):
                    yield
            except LeaseTakenError as error:
                raise BusyError(f"Another process is {doing}. Wait for it to finish, then try again.") from error
            return
        path = Path(self.path(f"locks/{name}.lock"))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(path, timeout=timeout_seconds):
                yield
        except filelock.Timeout as error:
            raise BusyError(f"Another process is {doing}. Wait for it to finish, then try again.") from error


def write_file_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write beside, flush, rename: after a crash the path holds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _claim_staging(parent: Path) -> tuple[Path, int]:
    """A new folder in `parent`, and the descriptor that holds its lock; folders of the dead are swept away.

    The kernel frees a folder's lock when its holder dies, so what can be locked is nobody's.
    """
    parent.mkdir(parents=True, exist_ok=True)
    guard = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)  # between making a folder and locking it nobody sweeps
        for old in parent.iterdir():
            with contextlib.suppress(OSError):
                descriptor = os.open(old, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)
                finally:
                    os.close(descriptor)
        folder = Path(tempfile.mkdtemp(dir=parent))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    finally:
        os.close(guard)
    return folder, held


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
