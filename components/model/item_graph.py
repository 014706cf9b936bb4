"""The item graph as DGL holds it, its file form, and the matrices that the encoders multiply with.

An edge j -> i of a relation says that item i hears from item j; the weights into an item sum to 1. On disk it is one
parquet table (relation, source, target, weight), sorted: no pickle, equal graphs give equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch

from components.core.artifact import write_parquet
from components.model.propagation import SparseMatrix

# Else dgl writes a configuration file to the home directory and prints.
os.environ.setdefault("DGLBACKEND", "pytorch")

ITEM = "item"


def to_heterograph(relations: Mapping[str, sp.csr_matrix]) -> Any:
    """(I, I) row-normalised matrices by relation -> dgl.DGLGraph with one node type and `weight` on every edge."""
    import dgl

    num_items = next(iter(relations.values())).shape[0]
    edges, weights = {}, {}
    for name, matrix in relations.items():
        coo = sp.csr_matrix(matrix).tocoo()
        edge_type = (ITEM, name, ITEM)
        edges[edge_type] = (torch.from_numpy(coo.col.astype(np.int64)), torch.from_numpy(coo.row.astype(np.int64)))
        weights[edge_type] = torch.from_numpy(coo.data.astype(np.float32))
    graph = dgl.heterograph(edges, num_nodes_dict={ITEM: num_items})
    for edge_type, weight_E in weights.items():
        graph.edges[edge_type].data["weight"] = weight_E
    return graph


def matrices(graph: Any, *, items: npt.NDArray[np.int64] | None = None) -> dict[str, sp.csr_matrix]:
    """relation -> (I, I) row-normalised matrix; with `items`, of the induced sub-graph, normalised again."""
    found = {}
    for _, name, _ in graph.canonical_etypes:
        source, target = graph.edges(etype=name)
        weight = graph.edges[name].data["weight"].numpy()
        shape = (graph.num_nodes(), graph.num_nodes())
        matrix = sp.csr_matrix((weight, (target.numpy(), source.numpy())), shape=shape)
        if items is not None:
            matrix = _normalised(matrix[items][:, items])
        found[name] = matrix
    return found


def to_torch(relations: Mapping[str, sp.csr_matrix]) -> dict[str, SparseMatrix]:
    """What the encoders read."""
    return {name: SparseMatrix.from_scipy(matrix) for name, matrix in relations.items()}


def write_edges(graph: Any, path: Path) -> None:
    """The graph's edges, sorted by relation, target and source."""
    parts = []
    for name, matrix in sorted(matrices(graph).items()):
        matrix.sort_indices()
        target = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
        relation = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(target), dtype=np.int32)), pa.array([name]))
        columns = [relation.cast(pa.string()), pa.array(matrix.indices.astype(np.int32)), pa.array(target)]
        parts.append(pa.table([*columns, pa.array(matrix.data)], names=["relation", "source", "target", "weight"]))
    write_parquet(pa.concat_tables(parts), path)


def read_graph(path: Path, *, num_items: int, relations: tuple[str, ...]) -> Any:
    """The graph that `write_edges` wrote; relations without an edge are there, empty."""
    table = pq.read_table(path)
    found = {}
    for name in relations:
        rows = table.filter(pc.equal(table["relation"], name))
        entries = (rows["weight"].to_numpy(), (rows["target"].to_numpy(), rows["source"].to_numpy()))
        found[name] = sp.csr_matrix(entries, shape=(num_items, num_items), dtype=np.float32)
    return to_heterograph(found)


def _normalised(matrix: sp.csr_matrix) -> sp.csr_matrix:
    total = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(np.where(total > 0, 1 / np.maximum(total, 1e-12), 0)) @ matrix, dtype=np.float32)
