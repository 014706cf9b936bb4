"""The item world as of one cutoff, read from the graph artifact: what the model and the counted terms know then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
import torch
from safetensors.torch import load_file
from torch import Tensor

from components.core.artifact import Artifact
from components.core.split import cutoff_folder
from components.model.attributes import ItemAttributes
from components.model.encoders import ItemGraph
from components.model.item_graph import matrices, read_graph, to_torch
from components.model.linear_filter import FilterRows
from components.model.terms import CountedTerms, Popularity

MAX_AFFINITIES = 6
ATTRIBUTE_PREFIX = "attribute:"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Over the items it was asked for, in their order."""

    cutoff: datetime
    graph: ItemGraph
    users_I: Tensor  # (I,) float32, distinct users an item
    counted: CountedTerms


def read_snapshot(
    artifact: Artifact,
    cutoff: datetime,
    *,
    relations: tuple[str, ...],
    attributes: ItemAttributes,
    half_life_days: float,
    items: npt.NDArray[np.int64] | None,
) -> Snapshot:
    """`items` (I,) restricts everything to these; None keeps all. `attributes` are of the same items."""
    folder = cutoff_folder(cutoff)
    nodes = artifact.table(f"{folder}/nodes.parquet")
    whole = read_graph(
        artifact.path(f"{folder}/edges.parquet"),
        nodes=artifact.path(f"{folder}/other_nodes.parquet"),
        num_items=len(nodes),
        relations=relations,
    )
    rows = load_file(artifact.path(f"{folder}/filter.safetensors"))
    ever, recent = nodes["distinct_users"].to_numpy(), nodes["recent_users"].to_numpy()
    if items is None:
        filter_rows = FilterRows(rows["indptr"], rows["indices"], rows["values"])
    else:
        parts = (rows["values"].numpy(), rows["indices"].numpy(), rows["indptr"].numpy())
        filter_rows = FilterRows.from_scipy(sp.csr_matrix(parts, shape=(len(nodes), len(nodes)))[items][:, items])
        ever, recent = ever[items], recent[items]
    popularity = Popularity(torch.tensor(ever, dtype=torch.float32), torch.tensor(recent, dtype=torch.float32))
    counted = CountedTerms(
        filter_rows=filter_rows, attributes=attributes, popularity=popularity, half_life_days=half_life_days
    )
    return Snapshot(
        cutoff=cutoff, graph=to_torch(matrices(whole, items=items)), users_I=popularity.ever_I, counted=counted
    )


def distinct_users(artifact: Artifact, cutoff: datetime) -> npt.NDArray[np.int64]:
    """(I,) users an item had at the cutoff."""
    users: npt.NDArray[np.int64] = artifact.table(f"{cutoff_folder(cutoff)}/nodes.parquet")["distinct_users"].to_numpy()
    return users


def read_attributes(items: pa.Table, *, rows: npt.NDArray[np.int64] | None = None) -> ItemAttributes:
    """Codes of the items' attributes (of `rows` alone, if given, under the same code for the same value).

    Attributes that name nearly every item apart teach nothing and are left out. A taste is counted for those that most
    items have.
    """
    num_items = items.num_rows
    columns: dict[str, Sequence[str | None]] = {}
    affinities: dict[str, float] = {}
    for column in sorted(items.column_names):
        if column != "price_band" and not column.startswith(ATTRIBUTE_PREFIX):
            continue
        name = column.removeprefix(ATTRIBUTE_PREFIX)
        values: list[str | None] = items[column].to_pylist()
        known = [value for value in values if value is not None]
        distinct = len(set(known))
        if distinct < 2 or distinct > max(num_items / 3, 2) or len(known) < 0.1 * num_items:
            continue
        columns[name] = values
        if len(known) >= 0.5 * num_items:
            affinities[name] = len(known) / num_items
    kept = sorted(affinities, key=lambda name: (-affinities[name], name))[:MAX_AFFINITIES]
    whole = ItemAttributes.from_columns(columns, num_items=num_items, affinity_names=sorted(kept))
    if rows is None:
        return whole
    return replace(whole, codes_IA=whole.codes_IA[torch.from_numpy(rows)])
