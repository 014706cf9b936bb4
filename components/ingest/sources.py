"""Finding the files of the source: from a setting to paths of one format on one file system."""

from __future__ import annotations

import glob
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from components.core.errors import MissingExtraError, SettingsError
from components.core.hashing import file_sha256
from components.core.sections import SourceSettings
from components.ingest.inspection import cannot_be_read, refuse_unreadable
from components.ingest.profile import Profile

PARQUET, DELIMITED, JSON_LINES = "parquet", "csv", "jsonl"
FORMATS = {
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".csv": DELIMITED,
    ".tsv": DELIMITED,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
}
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True, kw_only=True)
class SourceFiles:
    """What one setting names: files of one format, on one file system."""

    setting: str
    fs: fsspec.AbstractFileSystem
    paths: tuple[str, ...]
    format: str

    def fingerprint(self) -> list[list[str]]:
        """Name and content hash of each file; on a remote store what it gives instead of a hash (an ETag)."""
        hash_of = _sha256 if isinstance(self.fs, LocalFileSystem) else self.fs.ukey
        return [[path.rsplit("/", 1)[-1], str(hash_of(path))] for path in self.paths]

    def local_paths(self, folder: Path) -> list[str]:
        """Paths that DuckDB can read; remote files are copied into `folder`."""
        if isinstance(self.fs, LocalFileSystem):
            return list(self.paths)
        folder.mkdir(parents=True, exist_ok=True)
        copies = [str(folder / f"{number}-{path.rsplit('/', 1)[-1]}") for number, path in enumerate(self.paths)]
        for path, copy in zip(self.paths, copies, strict=True):
            self.fs.get_file(path, copy)
        return copies


def event_files(profile: Profile, settings: SourceSettings) -> SourceFiles:
    if settings.events is not None:
        return find(settings.events, setting="source.events")
    if profile.events.files is None:
        raise SettingsError(
            f"The profile '{profile.name}' needs source.events: the path, glob or URI of the event files "
            "(parquet, CSV or JSONL)."
        )
    return find(_in_data(profile, settings, profile.events.files), setting="source.data")


def catalog_files(profile: Profile, settings: SourceSettings) -> SourceFiles | None:
    """None: the shop has no catalogue file."""
    if settings.catalog is not None:
        return find(settings.catalog, setting="source.catalog")
    if profile.catalog is None or profile.catalog.files is None:
        return None
    return find(_in_data(profile, settings, profile.catalog.files), setting="source.data")


def find(location: str, *, setting: str) -> SourceFiles:
    """The files that a path, glob or fsspec URI names; a folder stands for the data files in it."""
    try:
        fs, path = fsspec.core.url_to_fs(location)
        found, what = _local(location) if isinstance(fs, LocalFileSystem) else _remote(fs, path)
    except Exception as error:  # each store's driver has exceptions of its own: no credentials, say
        first_line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise SettingsError(
            f"{setting} is {location}, which cannot be reached: {first_line}. "
            "Give a path, a glob, or a URI whose package is installed."
        ) from error
    paths = tuple(sorted(name for name in found if _format(name) is not None))
    if not paths:
        raise SettingsError(
            f"{setting} is {location}, which {what}. Give the path, glob or URI of files that end in "
            f"{', '.join(FORMATS)} (+ .gz)."
        )
    formats = {known for name in paths if (known := _format(name)) is not None}
    if len(formats) > 1:
        raise SettingsError(
            f"{setting} is {location}, which mixes file formats. Give a glob of one, such as *.parquet."
        )
    if isinstance(fs, LocalFileSystem):
        # Before anybody hashes them: a pipe would be waited for, a device never ends.
        for name in paths:
            refuse_unreadable(name)
    return SourceFiles(setting=setting, fs=fs, paths=paths, format=formats.pop())


def _local(location: str) -> tuple[list[str], str]:
    """(files, links and whatever else bears a file's name; what is wrong if none of them will do)."""
    path = Path(location.removeprefix("file://")).expanduser()
    if glob.has_magic(str(path)):
        matches = glob.glob(str(path), recursive=True)
        return [name for name in matches if not os.path.isdir(name)], "matches no such file"
    if os.path.isdir(path):
        return [str(file) for file in path.iterdir() if not file.is_dir()], (
            "is a folder without a parquet, CSV or JSONL file"
        )
    if os.path.lexists(path):
        return [str(path)], "is no parquet, CSV or JSONL file by its name"
    return [], "does not exist"


def _remote(fs: fsspec.AbstractFileSystem, path: str) -> tuple[list[str], str]:
    if glob.has_magic(path):
        return [name for name in fs.glob(path) if fs.isfile(name)], "matches no such file"
    if fs.isdir(path):
        files = [name for name in fs.ls(path, detail=False) if fs.isfile(name)]
        return files, "is a folder without a parquet, CSV or JSONL file"
    return [path] if fs.exists(path) else [], "does not exist, or is no such file by its name"


def _in_data(profile: Profile, settings: SourceSettings, files: str) -> str:
    if settings.data is not None:
        data = settings.data.rstrip("/")
        return data if _format(data) is not None else f"{data}/{files}"
    if profile.package is None:
        raise SettingsError(f"The profile '{profile.name}' needs source.data: the folder or file that holds its log.")
    spec = importlib.util.find_spec(profile.package.name)
    if spec is None or spec.origin is None:
        raise MissingExtraError(package=profile.package.name.replace("_", "-"), extra=profile.package.extra)
    return str(Path(spec.origin).parent / profile.package.folder / files)


def _sha256(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError as error:
        raise cannot_be_read(path, error.strerror or str(error)) from error


def _format(name: str) -> str | None:
    path = Path(name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return FORMATS.get(path.suffix.lower())
