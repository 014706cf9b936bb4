"""The item graph as DGL holds it, its file form, and the matrices that the encoders multiply with.

An edge j -> i of a relation says that item i hears from item j; the weights into an item sum to 1. Nodes of another
kind (attribute values, entities, users) hear from items and items from them, by a relation of the same name each way.
On disk it is one parquet table of edges, sorted, and one of the other nodes' names: no pickle, equal graphs give equal
bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from components.model.propagation import Relation, SparseMatrix, TwoHop

# Else dgl writes a configuration file to the home directory and prints.
os.environ.setdefault("DGLBACKEND", "pytorch")

ITEM = "item"
EDGES = pa.schema(
    [
        ("relation", TEXT := pa.dictionary(pa.int32(), pa.string())),
        ("source_kind", TEXT),
        ("target_kind", TEXT),
        ("source", pa.int32()),
        ("target", pa.int32()),
        ("weight", pa.float32()),
    ]
)
NODES = pa.schema([("kind", pa.string()), ("node", pa.int32()), ("name", pa.string())])


@dataclass(frozen=True, kw_only=True)
class NodeRelation:
    """Items that meet in N nodes of another kind."""

    kind: str  # the nodes' type; no two relations share one
    names: Sequence[str]  # N
    gather: sp.csr_matrix  # (N, I) row-normalised: what a node hears from its items
    spread: sp.csr_matrix  # (I, N) row-normalised: what an item hears from its nodes


@dataclass(frozen=True)
class TwoHopMatrices:
    """What is left of a NodeRelation without its names."""

    gather: sp.csr_matrix  # (N, I)
    spread: sp.csr_matrix  # (I, N)


def to_heterograph(relations: Mapping[str, sp.csr_matrix | NodeRelation]) -> Any:
    """Matrices by relation -> dgl.DGLGraph: (item, name, item), or (item, name, kind) and (kind, name, item)."""
    import dgl

    num_nodes: dict[str, int] = {}
    edges, weights = {}, {}
    for (source_kind, name, target_kind), matrix in _by_edge_type(relations).items():
        num_nodes[target_kind], num_nodes[source_kind] = matrix.shape
        coo = sp.csr_matrix(matrix).tocoo()
        edge_type = (source_kind, name, target_kind)
        edges[edge_type] = (torch.from_numpy(coo.col.astype(np.int64)), torch.from_numpy(coo.row.astype(np.int64)))
        weights[edge_type] = torch.from_numpy(coo.data.astype(np.float32))
    graph = dgl.heterograph(edges, num_nodes_dict=num_nodes)
    for edge_type, weight_E in weights.items():
        graph.edges[edge_type].data["weight"] = weight_E
    return graph


def matrices(graph: Any, *, items: npt.NDArray[np.int64] | None = None) -> dict[str, sp.csr_matrix | TwoHopMatrices]:
    """relation -> (I, I) row-normalised matrix, or the two over other nodes.

    With `items`, of the sub-graph that these items and all other nodes induce, normalised again.
    """
    found: dict[str, sp.csr_matrix | TwoHopMatrices] = {}
    halves: dict[str, dict[str, sp.csr_matrix]] = {}
    for edge_type in graph.canonical_etypes:
        source_kind, name, target_kind = edge_type
        matrix = _of_edge_type(graph, edge_type)
        if items is not None:
            matrix = matrix[items] if target_kind == ITEM else matrix
            matrix = row_normalised(matrix[:, items] if source_kind == ITEM else matrix)
        if source_kind == target_kind:
            found[name] = matrix
        else:
            halves.setdefault(name, {})["spread" if target_kind == ITEM else "gather"] = matrix
    return found | {name: TwoHopMatrices(**both) for name, both in halves.items()}


def to_torch(relations: Mapping[str, sp.csr_matrix | TwoHopMatrices]) -> dict[str, Relation]:
    """What the encoders read."""
    return {
        name: TwoHop(SparseMatrix.from_scipy(one.gather), SparseMatrix.from_scipy(one.spread))
        if isinstance(one, TwoHopMatrices)
        else SparseMatrix.from_scipy(one)
        for name, one in relations.items()
    }


def write_edges(graph: Any, path: Path) -> None:
    """The graph's edges, sorted by relation, kinds, target and source."""
    edge_types = sorted(graph.canonical_etypes, key=lambda one: (one[1], one[0], one[2]))
    texts = sorted({text for edge_type in edge_types for text in edge_type})
    parts = [EDGES.empty_table()]
    for source_kind, name, target_kind in edge_types:
        matrix = _of_edge_type(graph, (source_kind, name, target_kind))
        matrix.sort_indices()
        target = np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))
        codes = [np.full(len(target), texts.index(text), dtype=np.int32) for text in (name, source_kind, target_kind)]
        coded = [pa.DictionaryArray.from_arrays(pa.array(code), pa.array(texts, pa.string())) for code in codes]
        numbers = [matrix.indices.astype(np.int32), target, matrix.data]
        parts.append(pa.table([*coded, *map(pa.array, numbers)], schema=EDGES))
    texts_only = [field.name for field in EDGES if field.type == TEXT]
    table = pa.concat_tables(parts).unify_dictionaries()
    write_parquet(table, path, dictionaries=texts_only, has_statistics=False)


def write_nodes(relations: Mapping[str, sp.csr_matrix | NodeRelation], path: Path) -> None:
    """The names of nodes other than items, by kind and number."""
    parts = [NODES.empty_table()]
    for one in sorted((one for one in relations.values() if isinstance(one, NodeRelation)), key=lambda one: one.kind):
        numbers = np.arange(len(one.names), dtype=np.int32)
        columns = [pa.repeat(pa.scalar(one.kind), len(numbers)), pa.array(numbers), pa.array(one.names, pa.string())]
        parts.append(pa.table(columns, schema=NODES))
    write_parquet(pa.concat_tables(parts), path)


def read_graph(edges: Path, *, nodes: Path, num_items: int, relations: tuple[str, ...]) -> Any:
    """The graph that `write_edges` and `write_nodes` wrote; relations without an edge are there, empty."""
    counts = pq.read_table(nodes, columns=["kind"])["kind"].value_counts().to_pylist()
    num_nodes = {ITEM: num_items} | {count["values"]: count["counts"] for count in counts}
    table = pq.read_table(edges, read_dictionary=["relation", "source_kind", "target_kind"])
    found: dict[str, sp.csr_matrix | NodeRelation] = {}
    for name in relations:
        rows = table.filter(pc.equal(table["relation"], name))
        kinds = set(rows["source_kind"].unique().to_pylist()) - {ITEM}
        if kinds:
            (kind,) = kinds
            shape = (num_nodes[kind], num_items)
            gather = _matrix(rows.filter(pc.equal(rows["target_kind"], kind)), shape)
            spread = _matrix(rows.filter(pc.equal(rows["source_kind"], kind)), shape[::-1])
            found[name] = NodeRelation(kind=kind, names=(), gather=gather, spread=spread)
        else:
            found[name] = _matrix(rows, (num_items, num_items))
    return to_heterograph(found)


def row_normalised(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Rows that sum to 1, or are empty."""
    rows = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    total = np.asarray(rows.sum(axis=1)).ravel()
    rows.data /= np.repeat(np.maximum(total, 1e-12), np.diff(rows.indptr)).astype(np.float32)
    return rows


def _by_edge_type(
    relations: Mapping[str, sp.csr_matrix | NodeRelation],
) -> dict[tuple[str, str, str], sp.csr_matrix]:
    """(kind of source, relation, kind of target) -> (targets, sources)."""
    found = {}
    for name, one in relations.items():
        if isinstance(one, NodeRelation):
            found[ITEM, name, one.kind] = one.gather
            found[one.kind, name, ITEM] = one.spread
        else:
            found[ITEM, name, ITEM] = one
    return found


def _of_edge_type(graph: Any, edge_type: tuple[str, str, str]) -> sp.csr_matrix:
    """(targets, sources)."""
    source, target = graph.edges(etype=edge_type)
    weight = graph.edges[edge_type].data["weight"].numpy()
    shape = (graph.num_nodes(edge_type[2]), graph.num_nodes(edge_type[0]))
    return sp.csr_matrix((weight, (target.numpy(), source.numpy())), shape=shape)


def _matrix(rows: pa.Table, shape: tuple[int, int]) -> sp.csr_matrix:
    entries = (rows["weight"].to_numpy(), (rows["target"].to_numpy(), rows["source"].to_numpy()))
    return sp.csr_matrix(entries, shape=shape, dtype=np.float32)
