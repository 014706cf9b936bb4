"""A shop in a folder: write its log in any form, ingest it, look at the artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.core.artifact import Artifact
from components.core.settings import Settings, load_settings
from components.core.step import Execution, execute
from components.core.store import Store


class Shop:
    """One project's home and source files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: dict[str, Any] = {"profile": "contract"}

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def log(self, text: str, *, name: str = "events.csv") -> Path:
        path = self.write(name, text)
        self.source["events"] = str(path)
        return path

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.folder / "home", source=self.source)

    @property
    def store(self) -> Store:
        return Store(self.settings.artifact_root)

    def execute(self, *, day: str | None = None, as_of: datetime | None = None, run_id: str = "test") -> Execution:
        from components.ingest.step import STEP

        options = {"day": day} if day else {}
        return execute(STEP, settings=self.settings, inputs={}, run_id=run_id, as_of=as_of, options=options)

    def ingest(self, **arguments: Any) -> Artifact:
        execution = self.execute(**arguments)
        artifact = Artifact.open(self.store, execution.ref.uri, sha256=execution.ref.sha256, kind="events")
        artifact.verify()
        _assert_rows_law(artifact)
        return artifact


def _assert_rows_law(artifact: Artifact) -> None:
    rows = artifact.manifest.statistics["rows"]
    assert rows["source"] == rows["kept"] + rows["duplicates"] + rows["rejected"]
    assert rows["kept"] == artifact.manifest.rows == len(events_of(artifact))
    assert rows["rejected"] == artifact.table("rejects.parquet").num_rows
    for part in artifact.manifest.partitions:
        day = part.statistics
        assert day["source"] == day["kept"] + day["duplicates"] + day["rejected"]
        assert day["kept"] == part.rows


def events_of(artifact: Artifact) -> list[dict[str, Any]]:
    return [row for path in artifact.partition_paths() for row in pq.read_table(path).to_pylist()]


def column(rows: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]
