"""Lines that outlive the process: JSON lines by day and worker under the artifact root, whole or not at all.

`append` returns when its lines are on disk: written and synced, or on an object store put. A worker that is killed
loses nothing that it has returned from. Threads that append at once share one sync.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from components.core.errors import full_disk_as_sentence
from components.core.store import Store

# An object cannot be appended to: a segment is put again with every batch, until it is this long.
SEGMENT_BYTES = 1_000_000


class LineLog:
    """`<folder>/<day>/<worker>.jsonl`; on an object store `<worker>-<n>.jsonl`. Safe to share between threads."""

    def __init__(self, store: Store, folder: str, *, worker: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.store = store
        self.folder = folder
        self.worker = worker
        self._segment_bytes = segment_bytes
        self._queue, self._disk = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[str, bytes]] = []
        self._first_waiting = 0  # ticket of the first that waits
        self._failed: tuple[range, Exception] | None = None
        self._day: str | None = None
        self._descriptor: int | None = None
        self._segment = bytearray()
        self._segment_number = 0

    def append(self, lines: Sequence[bytes], *, day: str) -> None:
        """Keep the lines (without their ends) for good. Raises OSError, or DiskFullError, and then keeps none."""
        data = b"".join(line + b"\n" for line in lines)
        with self._queue:
            ticket = self._first_waiting + len(self._waiting)
            self._waiting.append((day, data))
        with self._disk:
            with self._queue:
                batch, first = self._waiting, self._first_waiting
                if ticket >= first:  # else another thread has written ours with its own
                    self._waiting, self._first_waiting = [], first + len(batch)
            if ticket >= first:
                self._failed = (
                    None
                    if (error := self._written(batch)) is None
                    else (
                        range(first, first + len(batch)),
                        error,
                    )
                )
            if self._failed is not None and ticket in self._failed[0]:
                raise self._failed[1]

    def close(self) -> None:
        with self._disk:
            self._close()

    def _written(self, batch: Sequence[tuple[str, bytes]]) -> Exception | None:
        try:
            with full_disk_as_sentence("writing down what happened", root=self.store.root):
                for day in dict.fromkeys(day for day, _ in batch):
                    self._write(day, b"".join(data for its_day, data in batch if its_day == day))
        except Exception as error:  # noqa: BLE001 (each store fails in its own types; all who wait must hear of it)
            return error
        return None

    def _write(self, day: str, data: bytes) -> None:
        if day != self._day:
            self._close()
            self._day = day
        if self.store.is_local:
            self._write_file(day, data)
        else:
            self._put_segment(day, data)

    def _write_file(self, day: str, data: bytes) -> None:
        path = Path(self.store.path(f"{self.folder}/{day}/{self.worker}.jsonl"))
        if self._descriptor is None or not path.exists():  # taken away by who tidies up, or by hand
            self._close_file()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            for folder in (path.parent, path.parent.parent):
                _sync_folder(folder)
        before = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, before)  # no half of a line for the next batch to go on from
            raise

    def _put_segment(self, day: str, data: bytes) -> None:
        grown = bytes(self._segment) + data
        name = f"{self.folder}/{day}/{self.worker}-{self._segment_number}.jsonl"
        self.store.fs.pipe_file(self.store.path(name), grown)
        self._segment = bytearray(grown)
        if len(grown) >= self._segment_bytes:
            self._segment = bytearray()
            self._segment_number += 1

    def _close(self) -> None:
        self._close_file()
        if self._segment:
            self._segment = bytearray()
            self._segment_number += 1

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
