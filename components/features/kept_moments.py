"""Features of each moment, kept between runs: a moment is computed again where something that it depends on changed.

A row of moment T is made of the events before T, the catalogue and the settings. A late row re-opens its day, and with
it the moments after that day; those before it are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.artifact import write_parquet
from components.core.clock import midnight
from components.core.errors import ArtifactError
from components.core.hashing import code_sha256, file_sha256, json_sha256
from components.core.schemas import ITEM_STATISTICS, USER_HISTORY, USER_STATISTICS
from components.core.shortcut import read_shortcut, write_shortcut
from components.core.split import TimeSplit
from components.core.step import StepContext
from components.core.store import Store
from components.features.snapshots import Snapshots

TABLE = "tables/feature_moments"
_STATE = f"{TABLE}/state.json"
SCHEMAS: Mapping[str, pa.Schema] = {
    "user_history": USER_HISTORY,
    "user_statistics": USER_STATISTICS,
    "item_statistics": ITEM_STATISTICS,
}
Tables = dict[str, pa.Table]


def tables_at(context: StepContext, split: TimeSplit) -> tuple[Tables, Sequence[datetime]]:
    """-> the tables of SCHEMAS over all snapshot times, sorted by moment and id; and the moments computed just now."""
    moments = sorted(set(split.snapshot_times))
    keys = {moment: _key(context, moment, split) for moment in moments}
    kept = _read(context.store, set(keys.values()))
    missing = [moment for moment in moments if keys[moment] not in kept]
    found = {moment: kept[keys[moment]] for moment in moments if keys[moment] in kept}
    if missing:
        fresh = _computed(context, missing, split)
        for moment in missing:
            at = pa.scalar(moment, USER_HISTORY.field("event_timestamp").type)
            found[moment] = {
                name: table.filter(pc.equal(table["event_timestamp"], at)) for name, table in fresh.items()
            }
        _keep(context.store, {keys[moment]: found[moment] for moment in moments}, already=set(kept))
    whole = {
        name: pa.concat_tables([found[moment][name].cast(schema) for moment in moments]).combine_chunks()
        for name, schema in SCHEMAS.items()
    }
    return whole, missing


def _key(context: StepContext, moment: datetime, split: TimeSplit) -> str:
    """Of all that a row of the moment is made of."""
    clean = context.inputs["clean"].manifest
    catalog = next(entry.sha256 for entry in clean.files if entry.path == "catalog.parquet")
    return json_sha256(
        {
            "moment": moment,
            "days": [part.sha256 for part in clean.partitions if midnight(part.day) < moment],
            "catalog": catalog,
            "window_seconds": split.window.total_seconds(),
            "settings": context.settings.section_sha256(("features",)),
            "code": code_sha256(("components.features", "components.core.schemas")),
        }
    )[:32]


def _computed(context: StepContext, moments: Sequence[datetime], split: TimeSplit) -> Tables:
    clean = context.inputs["clean"]
    days = zip(clean.manifest.partitions, clean.partition_paths(), strict=True)
    with Snapshots(
        event_files=[path for part, path in days if midnight(part.day) < moments[-1]],
        catalog_file=clean.path("catalog.parquet"),
        moments=moments,
        recent_window=split.window,
        settings=context.settings.features,
    ) as snapshots:
        return {
            "user_history": snapshots.user_history(),
            "user_statistics": snapshots.user_statistics(),
            "item_statistics": snapshots.item_statistics(),
        }


def _read(store: Store, keys: set[str]) -> dict[str, Tables]:
    state: dict[str, dict[str, str]] = read_shortcut(store, _STATE) or {}
    found: dict[str, Tables] = {}
    for key in keys & set(state):
        try:
            files = {name: store.fetch(_path(key, name), sha256=state[key][name]) for name in SCHEMAS}
        except ArtifactError:
            continue  # gone or damaged: computed again
        found[key] = {name: pq.read_table(path, schema=SCHEMAS[name]) for name, path in files.items()}
    return found


def _keep(store: Store, moments: Mapping[str, Tables], *, already: set[str]) -> None:
    """This run's moments and no others: files first, then the state that names them."""
    before: dict[str, dict[str, str]] = read_shortcut(store, _STATE) or {}
    state = {key: before[key] for key in already}
    with store.staging() as folder:
        for key, tables in moments.items():
            if key in already:
                continue
            state[key] = {}
            for name, table in tables.items():
                local = Path(folder) / f"{key}-{name}.parquet"
                write_parquet(table, local)
                state[key][name] = file_sha256(local)
                store.put_file(local, _path(key, name))
    write_shortcut(store, _STATE, state)
    for key in before.keys() - moments.keys():
        store.delete(f"{TABLE}/{key}")


def _path(key: str, name: str) -> str:
    return f"{TABLE}/{key}/{name}.parquet"
