"""Content hashes: of files, of JSON values, and of the code that makes an artifact."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Hash of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_sha256(rooms: tuple[str, ...]) -> str:
    """Hash of the sources under the given packages and of the locked libraries that they run on.

    Not the git commit: a change of a README must not make every step run again.
    """
    digest = hashlib.sha256()
    for path in sorted(_sources(rooms)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\n".join(_library_versions()).encode())
    return digest.hexdigest()


def _sources(rooms: Iterable[str]) -> Iterable[Path]:
    for room in rooms:
        spec = importlib.util.find_spec(room)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(room)
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            yield from (path for path in origin.parent.rglob("*") if path.suffix in {".py", ".toml", ".html"})
        else:
            yield origin


@cache
def _library_versions() -> tuple[str, ...]:
    # The versions that the lock file pins and that can change a result; a wheel has no lock file beside it.
    shaping = ("duckdb", "numpy", "pandas", "pyarrow", "scipy", "torch", "dgl", "feast", "great-expectations")
    found = []
    for name in shaping:
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)
