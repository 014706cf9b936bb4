"""Artifacts: folders whose `manifest.json`, written last, says what is in them, from what, and made how.

The content hash covers data files and day partitions, not the run id, the time, or files added as `report`: equal work
gives equal hashes. A reader checks the hash of each file that it opens, and the seal of the manifest itself, whose
statistics (a verdict, say) and times no file's hash speaks for.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import ArtifactError
from components.core.hashing import file_sha256, json_sha256
from components.core.pipeline_metrics import Sample
from components.core.store import Store, write_file_whole

MANIFEST = "manifest.json"
FORMAT_VERSION = 2


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Record):
    path: str  # relative to the artifact's folder
    sha256: str
    size_bytes: int
    is_report: bool = False


class Partition(_Record):
    """One day of an event table; the file is shared by every artifact that includes this version of the day."""

    day: date
    path: str  # relative to the store's root
    sha256: str
    rows: int
    statistics: Mapping[str, int] = {}


class ArtifactRef(_Record):
    """What tasks hand each other: never rows, never users."""

    kind: str
    uri: str
    sha256: str
    rows: int


class Manifest(_Record):
    format_version: int = FORMAT_VERSION
    kind: str
    uri: str
    content_sha256: str
    rows: int
    as_of: datetime
    summary: str
    statistics: Mapping[str, Any]
    files: Sequence[FileEntry]
    partitions: Sequence[Partition] = ()
    samples: Sequence[Sample] = ()
    """The step's figures for Prometheus, which a reused step publishes too."""
    inputs: Sequence[ArtifactRef]
    step: str
    settings_sha256: str
    code_sha256: str
    run_id: str
    created_at: datetime
    seal: str = ""
    """Hash of all the other fields."""

    def sealed(self) -> Manifest:
        """This manifest with its seal, its values as a reader will find them in JSON."""
        read_back = Manifest.model_validate_json(self.model_dump_json())
        return read_back.model_copy(update={"seal": read_back.own_sha256()})

    def own_sha256(self) -> str:
        # Without samples the hash is that of artifacts made before there were any.
        left_out = {"seal"} if self.samples else {"seal", "samples"}
        return json_sha256(self.model_dump(mode="json", exclude=left_out))

    def ref(self) -> ArtifactRef:
        return ArtifactRef(kind=self.kind, uri=self.uri, sha256=self.content_sha256, rows=self.rows)


class Artifact:
    """A committed artifact, opened for reading."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self._entries = {entry.path: entry for entry in manifest.files}

    @classmethod
    def open(cls, store: Store, uri: str, *, sha256: str | None = None, kind: str | None = None) -> Artifact:
        """Read and check the manifest; `sha256` and `kind` are what the caller expects, if it knows."""
        relative = f"{store.relative(uri)}/{MANIFEST}"
        if not store.exists(relative):
            raise ArtifactError(f"{uri} is no finished artifact: it has no {MANIFEST}. Run the step that makes it.")
        try:
            manifest = Manifest.model_validate(store.read_json(relative))
        except (ValueError, ValidationError) as error:
            raise ArtifactError(f"{uri}/{MANIFEST} cannot be read. Delete its folder and run again.") from error
        if manifest.format_version != FORMAT_VERSION:
            raise ArtifactError(
                f"{uri} has format {manifest.format_version}, this version reads {FORMAT_VERSION}. Run the step again."
            )
        recomputed = content_sha256(manifest.kind, manifest.files, manifest.partitions)
        if manifest.content_sha256 != recomputed or (sha256 is not None and sha256 != recomputed):
            raise ArtifactError(f"{uri} is not the artifact that was asked for: its content hash differs.")
        if manifest.seal != manifest.own_sha256():
            raise ArtifactError(f"{uri}/{MANIFEST} is not what was written. Delete its folder and run again.")
        if kind is not None and manifest.kind != kind:
            raise ArtifactError(f"{uri} is of kind '{manifest.kind}', '{kind}' was expected.")
        return cls(store, manifest)

    @property
    def as_of(self) -> datetime:
        return self.manifest.as_of

    @property
    def file_names(self) -> list[str]:
        return sorted(self._entries)

    def path(self, name: str) -> Path:
        """Local path of a file, its hash checked."""
        if name not in self._entries:
            raise ArtifactError(f"{self.manifest.uri} has no file '{name}'; it has: {', '.join(self.file_names)}.")
        return self.store.fetch(f"{self.store.relative(self.manifest.uri)}/{name}", sha256=self._entries[name].sha256)

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.path(name))

    def partition_paths(self) -> list[Path]:
        """Local paths of the day partitions in order of day, hashes checked."""
        return [self.store.fetch(part.path, sha256=part.sha256) for part in self.manifest.partitions]

    def local_folder(self, cache: Path) -> Path:
        """A folder of this machine with every file and the manifest; a remote artifact is copied under `cache` first.

        Hashes are checked when files are copied; a reader of a local artifact checks them itself.
        """
        if self.store.is_local:
            return Path(self.store.path(self.store.relative(self.manifest.uri)))
        folder = cache / self.manifest.content_sha256
        if not (folder / MANIFEST).is_file():
            for name in self.file_names:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path(name), target)
            write_file_whole(folder / MANIFEST, self.manifest.model_dump_json().encode())
        return folder

    def verify(self) -> None:
        """Check every file and partition; raises ArtifactError at the first that differs."""
        for name in self.file_names:
            self.path(name)
        self.partition_paths()


class ArtifactWriter:
    """Collects an artifact's files in a staging folder until `commit`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partitions: list[Partition] = []
        self._reports: set[str] = set()

    def path(self, name: str, *, is_report: bool = False) -> Path:
        """Where to write the file `name`; a report (HTML, timings) is not part of the content hash."""
        if is_report:
            self._reports.add(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_table(self, name: str, table: pa.Table) -> None:
        """Parquet with microsecond times (Feast's DuckDB store refuses nanoseconds). Sort rows before."""
        write_parquet(table, self.path(name))

    def files(self) -> list[FileEntry]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [
            FileEntry(
                path=(name := path.relative_to(self.folder).as_posix()),
                sha256=file_sha256(path),
                size_bytes=path.stat().st_size,
                is_report=name in self._reports,
            )
            for path in paths
        ]


def write_parquet(
    table: pa.Table, path: Path, *, dictionaries: Sequence[str] | None = None, has_statistics: bool = True
) -> None:
    """Parquet with microsecond times.

    Args:
        dictionaries: columns whose values repeat; one of numbers that do not costs time and space. None: all.
        has_statistics: least and greatest values, for readers that filter; of a file that is only read whole they are
            half of the time that it takes to write.
    """
    pq.write_table(
        table,
        path,
        compression="zstd",
        coerce_timestamps="us",
        allow_truncated_timestamps=True,
        use_dictionary=True if dictionaries is None else list(dictionaries),
        write_statistics=has_statistics,
    )


def content_sha256(kind: str, files: Sequence[FileEntry], partitions: Sequence[Partition]) -> str:
    return json_sha256(
        {
            "kind": kind,
            "files": sorted((entry.path, entry.sha256) for entry in files if not entry.is_report),
            "partitions": sorted((part.day.isoformat(), part.sha256) for part in partitions),
        }
    )
