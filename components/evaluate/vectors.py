"""Are the items' vectors theirs? Beside the item graph that they were convolved over.

An item's vector is made of its own and its neighbours', so it is nearer to the middle of its neighbours than to the
middle of another item's. Where it is not, the vector is not at home: rows were shuffled, or belong to another table.
A few such items are in every bundle, those that the graph says little of; what counts is how many more there are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

# Other items whose neighbourhoods an item's own is compared with.
STRANGERS = 20
# Of a larger catalogue this many items are looked at, drawn at random.
SAMPLE_ITEMS = 10_000
# At home: nearer to its own neighbourhood than to this share of strangers'.
_AT_HOME_SHARE = 0.8


def misplaced_share(target_ID: npt.NDArray[np.float32], neighbours: pa.Table, *, seed: int) -> float:
    """Share of the items with neighbours that are not at home among them; nan where no item has one.

    Args:
        target_ID: (I, D) what a user is compared with.
        neighbours: `item`, `neighbour`, `weight` (one row an edge), as the bundle keeps them.
    """
    num_items = len(target_ID)
    edges = (neighbours["weight"].to_numpy(), (neighbours["item"].to_numpy(), neighbours["neighbour"].to_numpy()))
    adjacency = sp.csr_matrix(edges, shape=(num_items, num_items), dtype=np.float32)
    generator = np.random.default_rng(seed)
    items = np.flatnonzero((np.diff(adjacency.indptr) > 0) & target_ID.any(axis=1))
    if len(items) < 2:
        return float("nan")
    if len(items) > SAMPLE_ITEMS:
        items = np.sort(generator.choice(items, SAMPLE_ITEMS, replace=False))
    middle_ND = _unit(adjacency[items] @ _unit(target_ID))
    unit_ND = _unit(target_ID[items])
    own = np.einsum("nd,nd->n", unit_ND, middle_ND)
    nearer = np.zeros(len(items))
    for _ in range(STRANGERS):
        nearer += own > np.einsum("nd,nd->n", unit_ND, middle_ND[generator.permutation(len(items))])
    return float((nearer < _AT_HOME_SHARE * STRANGERS).mean())


def misplaced_in(folder: Path, target_ID: npt.NDArray[np.float32], *, seed: int) -> float:
    """The same of a bundle's folder; nan where it keeps no neighbours."""
    path = folder / "neighbours.parquet"
    return misplaced_share(target_ID, pq.read_table(path), seed=seed) if path.is_file() else float("nan")


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)
