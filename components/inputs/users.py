"""What the model is given of each user: the history and statistics that the features artifact knew at the cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.core.artifact import Artifact
from components.core.schemas import TIMESTAMP
from components.model.histories import Histories

_HISTORY_COLUMNS = ["user_id", "history_items", "history_weights", "history_ages_days"]


def has_snapshot(features: Artifact, moment: datetime) -> bool:
    """Whether the artifact holds users' features at `moment`."""
    return bool(_rows_at(features, "user_history.parquet", moment, columns=["user_id"]).num_rows)


def read_histories(
    features: Artifact, moment: datetime, *, user_ids: pa.StringArray, item_ids: pa.StringArray
) -> Histories:
    """Histories (U) of `user_ids` over positions in `item_ids`; empty for a user without features at `moment`."""
    table = _of_users(_rows_at(features, "user_history.parquet", moment, columns=_HISTORY_COLUMNS), user_ids)
    items = table["history_items"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(items), 0).to_numpy().astype(np.int64)
    position = pc.index_in(items.flatten(), value_set=item_ids)
    histories = Histories(
        indptr=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
        items=torch.from_numpy(pc.fill_null(position, 0).to_numpy().astype(np.int64)),
        weights=torch.from_numpy(_flat_floats(table["history_weights"])),
        ages_days=torch.from_numpy(_flat_floats(table["history_ages_days"])),
    )
    return histories.keep(torch.from_numpy(position.is_valid().to_numpy(zero_copy_only=False)))


def read_statistics(features: Artifact, moment: datetime, *, user_ids: pa.StringArray, names: Sequence[str]) -> Tensor:
    """(U, F) float32 of the named scalar statistics; nan where unknown."""
    table = _rows_at(features, "user_statistics.parquet", moment, columns=["user_id", *names])
    table = _of_users(table, user_ids)
    columns = [_floats(table[name]) for name in names]
    stacked = np.stack(columns, axis=1) if columns else np.empty((len(user_ids), 0), dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(stacked))


def _rows_at(features: Artifact, name: str, moment: datetime, *, columns: Sequence[str]) -> pa.Table:
    at = pa.scalar(moment, TIMESTAMP)
    return pq.read_table(features.path(name), columns=list(columns), filters=pc.field("event_timestamp") == at)


def _of_users(table: pa.Table, user_ids: pa.StringArray) -> pa.Table:
    """One row a user of `user_ids`, null where the table has none."""
    place = pc.index_in(user_ids, value_set=table["user_id"].combine_chunks())
    return table.take(place)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return values.astype(np.float32)


def _flat_floats(column: pa.ChunkedArray) -> np.ndarray:
    flat: Any = column.combine_chunks().flatten()
    values: np.ndarray = flat.cast(pa.float32()).to_numpy(zero_copy_only=False)
    return values.copy()  # torch wants memory that it may write to
