"""An event table kept as one immutable parquet file a day, named by its content.

A table's state is one small JSON file that maps days to files. A run that replaces a day writes the day's new file
first and the state last, so a reader sees the whole old day or the whole new one, and older snapshots stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import pyarrow as pa

from components.core.artifact import Partition, write_parquet
from components.core.errors import ArtifactError
from components.core.hashing import file_sha256, json_sha256
from components.core.store import Store


class DayTable:
    """`name` is the table's folder under the store: 'events', 'clean_events'."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def days(self) -> dict[date, Partition]:
        """The present state, by day."""
        if not self.store.exists(self._state):
            return {}
        try:
            state = self.store.read_json(self._state)
            if state["sha256"] != json_sha256(state["days"]):
                raise ValueError(state["sha256"])
            return {entry.day: entry for entry in map(Partition.model_validate, state["days"])}
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.store.uri(self._state)} is not what was written. Delete this file, then ingest the whole log "
                "again: what is finished is found by its content."
            ) from error

    def write_day(self, day: date, table: pa.Table, *, statistics: Mapping[str, int] | None = None) -> Partition:
        """Publish a day's file (rows must be sorted by the caller). The state does not name it yet."""
        with self.store.staging() as folder:
            local = Path(folder) / "day.parquet"
            write_parquet(table, local)
            sha256 = file_sha256(local)
            relative = f"tables/{self.name}/day={day.isoformat()}/{sha256[:20]}.parquet"
            if not self.store.holds(relative, sha256=sha256):
                self.store.put_file(local, relative)
        return Partition(day=day, path=relative, sha256=sha256, rows=table.num_rows, statistics=statistics or {})

    def replace(self, partitions: Iterable[Partition], *, whole: bool) -> dict[date, Partition]:
        """Make `partitions` the state of their days; `whole` drops every other day. Returns the new state."""
        with self.store.lock(f"table-{self.name}", doing=f"writing the table '{self.name}'", timeout_seconds=60):
            state = {} if whole else self.days()
            state.update({partition.day: partition for partition in partitions})
            ordered = [state[day].model_dump(mode="json") for day in sorted(state)]
            self.store.write_json(self._state, {"days": ordered, "sha256": json_sha256(ordered)})
        return {day: state[day] for day in sorted(state)}

    @property
    def _state(self) -> str:
        return f"tables/{self.name}/state.json"
