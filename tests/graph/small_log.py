"""Item worlds from hand-made rows: as the graph step reads them, and as one call for those who test a relation."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from clean_log import catalog_table, event_table

from components.core.artifact import write_parquet
from components.core.hashing import file_sha256
from components.core.sections import GraphSettings
from components.graph.world import ItemWorld, Worlds, read_worlds

CUTOFF = datetime(2024, 3, 1, tzinfo=UTC)
ONE_IS_ENOUGH = GraphSettings(min_distinct_users=1, half_life_days=10)


def bought(
    user: str | None, session: str | None, *items: str, days_ago: float = 0.5, **more: Any
) -> list[dict[str, Any]]:
    """Purchases of one session, `days_ago` before the cutoff."""
    at = CUTOFF - timedelta(days=days_ago)
    return [{"user_id": user, "session_id": session, "item_id": item, "timestamp": at, **more} for item in items]


def log(*sessions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(itertools.chain.from_iterable(sessions))


def worlds(
    folder: Path,
    events: Sequence[dict[str, Any]],
    catalog: Sequence[dict[str, Any]] = (),
    *,
    cutoffs: Sequence[datetime] = (CUTOFF,),
    min_distinct_users: int = 1,
    **tables: pa.Table,
) -> Sequence[ItemWorld]:
    """`tables`: triples and rules."""
    return read(folder, events, catalog, cutoffs=cutoffs, min_distinct_users=min_distinct_users, **tables).by_cutoff


def read(
    folder: Path,
    events: Sequence[dict[str, Any]],
    catalog: Sequence[dict[str, Any]] = (),
    *,
    cutoffs: Sequence[datetime] = (CUTOFF,),
    min_distinct_users: int = 1,
    **more: Any,
) -> Worlds:
    """A file a day, as the graph step finds them."""
    by_day = defaultdict(list)
    for row in events:
        by_day[row["timestamp"].date()].append(row)
    days = []
    for day in sorted(by_day):
        path = folder / f"{day}.parquet"
        write_parquet(event_table(by_day[day]), path)
        days.append((day, path, file_sha256(path)))
    return read_worlds(days, catalog_table(catalog), cutoffs=cutoffs, min_distinct_users=min_distinct_users, **more)


def viewed(user: str | None, session: str | None, *items: str, days_ago: float = 0.5) -> list[dict[str, Any]]:
    """Views of one session, `days_ago` before the cutoff."""
    return bought(user, session, *items, days_ago=days_ago, event_type="view")


def entries(matrix: sp.csr_matrix, world: ItemWorld) -> dict[str, float]:
    """'a<b': how much item a hears from item b."""
    coo = matrix.tocoo()
    names = world.item_ids
    return {
        f"{names[i]}<{names[j]}": float(value) for i, j, value in zip(coo.row, coo.col, coo.data, strict=True) if value
    }


def row_sums(matrix: sp.csr_matrix) -> list[float]:
    return [float(total) for total in np.asarray(matrix.sum(axis=1)).ravel()]
