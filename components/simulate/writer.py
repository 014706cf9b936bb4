"""`simulate`: a world's log as files of the data contract, one a day, and its key.

    OUT/events/day=2024-01-01.parquet …   EVENTS of components/core/schemas.py
    OUT/catalog.parquet                   item_id, title, category, brand, price, further attributes
    OUT/key.json, OUT/planted.parquet     what was planted (components/simulate/key.py)
    OUT/truth/{users,items,ties}.parquet  what a recommender may only guess; ties are for social models

Memory is bounded by a batch of sessions, people and items; a day is generated while the day before is written.
"""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.artifact import write_parquet
from components.core.progress import Progress
from components.core.schemas import EVENTS, RATED_EVENTS
from components.core.store import write_file_whole
from components.simulate.behaviour import EVENT_TYPES, Batch
from components.simulate.defects import PLANTED, DayDefects, day_defects, plant
from components.simulate.event_rows import event_table
from components.simulate.key import DayFile, Key, LateRows
from components.simulate.ratings import RATING, rating_rows, with_ratings
from components.simulate.settings import WorldSettings
from components.simulate.world import World

KEY_FILE = "key.json"
PLANTED_FILE = "planted.parquet"
# Batches that may wait to be written while the next is made.
WAITING_BATCHES = 2
# Columns without a dictionary, by the names that a file may give them.
ASCENDING = {
    "event_id": "DELTA_BYTE_ARRAY",
    "timestamp": "DELTA_BINARY_PACKED",
    "event_time": "DELTA_BINARY_PACKED",
}


def simulate(settings: WorldSettings, out: Path, *, progress: Progress | None = None) -> Key:
    """Write the world's log under `out`, replacing what an earlier call left there."""
    (out / KEY_FILE).unlink(missing_ok=True)  # its presence says that the log is whole
    for folder in ("events", "truth"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    world = World(settings)
    write_parquet(world.catalog.table(settings), out / "catalog.parquet")
    write_parquet(world.catalog.truth(), out / "truth" / "items.parquet")
    write_parquet(world.population.ties(), out / "truth" / "ties.parquet")
    log = _LogWriter(world, out)
    with log:
        for day in (progress or Progress()).track(range(settings.days), description="simulate", total=settings.days):
            log.write_day(day)
    write_parquet(world.population.truth(), out / "truth" / "users.parquet")
    key = log.key()
    write_file_whole(out / KEY_FILE, key.model_dump_json(indent=1).encode())
    return key


class _LogWriter:
    """Generates in the caller's thread and writes in another: numpy and parquet both let go of the interpreter."""

    def __init__(self, world: World, out: Path) -> None:
        self._world = world
        self._settings = world.settings
        self._out = out
        self._files: list[DayFile] = []
        self._late: list[LateRows] = []
        self._late_tables: dict[int, list[pa.Table]] = {}
        self._event_types = np.zeros(len(EVENT_TYPES), dtype=np.int64)
        self._planted_rows: Counter[str] = Counter()
        self._schema = RATED_EVENTS if world.settings.rating_share else EVENTS
        self._sessions = self._anonymous = self._clean_rows = self._ratings = 0

    def __enter__(self) -> _LogWriter:
        self._planted = pq.ParquetWriter(self._out / PLANTED_FILE, PLANTED, compression="zstd")
        self._pool = ThreadPoolExecutor(max_workers=1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._planted.close()

    def write_day(self, day: int) -> None:
        settings = self._settings
        defects = day_defects(settings, day)
        path = f"events/day={settings.day(day).isoformat()}.parquet"
        file = _DayFile(self._out / path, renamed=defects.renamed, schema=self._schema)
        waiting: deque[Future[None]] = deque()
        rows = 0
        for table in self._tables(day, defects):
            if len(waiting) >= WAITING_BATCHES:
                waiting.popleft().result()
            waiting.append(self._pool.submit(file.write, table))
            rows += table.num_rows
        waiting.append(self._pool.submit(file.close))
        for future in waiting:
            future.result()
        self._files.append(DayFile(day=settings.day(day), path=path, rows=rows, renamed=defects.renamed))

    def _tables(self, day: int, defects: DayDefects) -> Iterator[pa.Table]:
        late: list[pa.Table] = []
        for batch in self._world.live_day():
            table = event_table(batch, self._settings, self._world.catalog, self._world.population)
            self._event_types += np.bincount(batch.event_type, minlength=len(EVENT_TYPES))
            self._sessions += len(batch.session_user)
            self._anonymous += int(batch.is_anonymous.sum())
            if self._settings.defects.is_clean:
                self._clean_rows += table.num_rows
                yield self._rated(table, batch)
                continue
            damaged = plant(batch, table, self._settings, is_late=defects.arrives is not None)
            self._clean_rows += damaged.clean_rows
            self._planted.write_table(damaged.planted)
            self._planted_rows.update(damaged.planted.column("kind").to_pylist())
            late.append(damaged.late)
            yield self._rated(damaged.table, batch)
        if defects.arrives is not None and late:
            self._keep_late(day, defects.arrives, pa.concat_tables(late))
        for table in self._late_tables.pop(day, []):
            yield self._rated(table, None)

    def _rated(self, table: pa.Table, batch: Batch | None) -> pa.Table:
        """The table as it is written: where people rate, with the batch's ratings, to which no defect is done."""
        if self._schema is EVENTS:
            return table
        given = RATED_EVENTS.empty_table()
        if batch is not None:
            given = rating_rows(batch, self._settings, self._world.catalog, self._world.population)
        self._ratings += given.num_rows
        self._clean_rows += given.num_rows
        return with_ratings(table, given)

    def _keep_late(self, day: int, arrives: int, rows: pa.Table) -> None:
        self._late_tables.setdefault(arrives, []).append(rows)
        day_, arrived = self._settings.day(day), self._settings.day(arrives)
        self._late.append(LateRows(day=day_, arrived=arrived, rows=rows.num_rows))

    def key(self) -> Key:
        return Key(
            settings=self._settings,
            as_of=self._settings.as_of,
            rows=sum(file.rows for file in self._files),
            clean_rows=self._clean_rows,
            sessions=self._sessions,
            anonymous_sessions=self._anonymous,
            event_types=dict(zip(EVENT_TYPES, self._event_types.tolist(), strict=True))
            | ({RATING: self._ratings} if self._ratings else {}),
            planted_rows=dict(sorted(self._planted_rows.items())),
            files=self._files,
            late=self._late,
            drifts=self._settings.drifts,
            favoured_category=self._world.market.favoured_category,
        )


class _DayFile:
    """One day's parquet file; opened by its first batch."""

    def __init__(self, path: Path, *, renamed: dict[str, str], schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._renamed = renamed
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        table = table.rename_columns([self._renamed.get(name, name) for name in table.column_names])
        if self._writer is None:
            # Without the stored Arrow schema a reader sees plain text where the writer had dictionaries.
            self._writer = pq.ParquetWriter(
                self._path,
                table.schema,
                compression="zstd",
                compression_level=1,
                store_schema=False,
                use_dictionary=[name for name in table.column_names if name not in ASCENDING],
                # Ids and times ascend: a sixth less to write than as they stand, and less to keep.
                column_encoding={name: encoding for name, encoding in ASCENDING.items() if name in table.column_names},
                coerce_timestamps="us",
            )
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is None:
            self.write(self._schema.empty_table())  # a day without visits
        assert self._writer is not None
        self._writer.close()
