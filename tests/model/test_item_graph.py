"""The item graph in memory, on disk, and as matrices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch

from components.model.item_graph import (
    NodeRelation,
    matrices,
    read_graph,
    to_heterograph,
    to_torch,
    write_edges,
    write_nodes,
)
from components.model.propagation import TwoHop, propagate


@pytest.fixture
def relations() -> dict[str, sp.csr_matrix]:
    together = sp.csr_matrix([[0, 0.75, 0.25, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0.5, 0, 0.5, 0]], dtype=np.float32)
    return {"together": together, "alone": sp.csr_matrix((4, 4), dtype=np.float32)}


def test_an_edge_runs_from_the_item_that_speaks_to_the_one_that_hears(relations: dict[str, sp.csr_matrix]) -> None:
    graph = to_heterograph(relations)
    source, target = graph.edges(etype="together")
    weight = graph.edges["together"].data["weight"]
    edges = sorted(zip(source.tolist(), target.tolist(), weight.tolist(), strict=True))
    assert edges == [(0, 1, 1), (0, 3, 0.5), (1, 0, 0.75), (2, 0, 0.25), (2, 3, 0.5)]
    assert graph.num_nodes() == 4
    assert graph.num_edges("alone") == 0


def written(graph: Any, folder: Path, relations: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The graph as it is read back."""
    write_edges(graph, folder / "edges.parquet")
    write_nodes(relations, folder / "other_nodes.parquet")
    names = tuple(sorted({name for _, name, _ in graph.canonical_etypes}))
    return read_graph(
        folder / "edges.parquet",
        nodes=folder / "other_nodes.parquet",
        num_items=graph.num_nodes("item"),
        relations=names,
    )


def test_what_is_written_is_read_back_equal(relations: dict[str, sp.csr_matrix], tmp_path: Path) -> None:
    graph = to_heterograph(relations)
    back = written(graph, tmp_path)
    assert sorted(back.etypes) == sorted(graph.etypes)
    assert back.num_nodes() == 4
    found = matrices(back)
    for name, matrix in relations.items():
        np.testing.assert_array_equal(found[name].toarray(), matrix.toarray())


@pytest.fixture
def meeting() -> NodeRelation:
    """Items 0 and 1 meet in 'red', items 1 and 3 in 'tea'."""
    gather = sp.csr_matrix([[0.75, 0.25, 0, 0], [0, 0.5, 0, 0.5]], dtype=np.float32)
    spread = sp.csr_matrix([[1, 0], [0.5, 0.5], [0, 0], [0, 1]], dtype=np.float32)
    return NodeRelation(kind="value", names=["red", "tea"], gather=gather, spread=spread)


def test_other_nodes_are_of_a_type_of_their_own_and_come_back(
    relations: dict[str, sp.csr_matrix], meeting: NodeRelation, tmp_path: Path
) -> None:
    whole = {**relations, "shares": meeting}
    graph = to_heterograph(whole)
    assert (graph.num_nodes("item"), graph.num_nodes("value")) == (4, 2)
    assert ("item", "shares", "value") in graph.canonical_etypes
    assert ("value", "shares", "item") in graph.canonical_etypes
    source, target = graph.edges(etype=("item", "shares", "value"))
    assert sorted(zip(source.tolist(), target.tolist(), strict=True)) == [(0, 0), (1, 0), (1, 1), (3, 1)]
    found = matrices(written(graph, tmp_path, whole))
    np.testing.assert_array_equal(found["shares"].gather.toarray(), meeting.gather.toarray())
    np.testing.assert_array_equal(found["shares"].spread.toarray(), meeting.spread.toarray())
    np.testing.assert_array_equal(found["together"].toarray(), relations["together"].toarray())
    assert pq.read_table(tmp_path / "other_nodes.parquet").to_pylist() == [
        {"kind": "value", "node": 0, "name": "red"},
        {"kind": "value", "node": 1, "name": "tea"},
    ]


def test_a_part_of_the_items_keeps_all_other_nodes_and_is_normalised_again(meeting: NodeRelation) -> None:
    part = matrices(to_heterograph({"shares": meeting}), items=np.array([3, 0]))["shares"]
    assert part.gather.toarray().tolist() == [[0, 1], [1, 0]]  # 'red' hears from 0 alone, 'tea' from 3
    assert part.spread.toarray().tolist() == [[0, 1], [1, 0]]


def test_encoders_read_both_ways_over_other_nodes(meeting: NodeRelation) -> None:
    both = to_torch(matrices(to_heterograph({"shares": meeting})))["shares"]
    assert isinstance(both, TwoHop)
    item_ID = torch.tensor([[1.0], [2], [3], [4]])
    # 'red' hears 1.25, 'tea' 3
    assert propagate(both, item_ID).ravel().tolist() == [1.25, 2.125, 0, 3]
    assert both.features_NF is None


def test_the_file_is_plain_sorted_rows(relations: dict[str, sp.csr_matrix], tmp_path: Path) -> None:
    write_edges(to_heterograph(relations), tmp_path / "edges.parquet")
    rows = pq.read_table(tmp_path / "edges.parquet").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("together", "item", "item", 1, 0, 0.75),
        ("together", "item", "item", 2, 0, 0.25),
        ("together", "item", "item", 0, 1, 1),
        ("together", "item", "item", 0, 3, 0.5),
        ("together", "item", "item", 2, 3, 0.5),
    ]


def test_equal_graphs_give_equal_bytes_in_whatever_order_their_edges_came(
    relations: dict[str, sp.csr_matrix], tmp_path: Path
) -> None:
    coo = relations["together"].tocoo()
    order = np.random.default_rng(0).permutation(coo.nnz)
    shuffled = sp.coo_matrix((coo.data[order], (coo.row[order], coo.col[order])), shape=coo.shape)
    for name, matrix in (("a", relations["together"]), ("b", shuffled)):
        other = {"together": matrix, "alone": relations["alone"]}
        write_edges(to_heterograph(dict(reversed(other.items()) if name == "b" else other.items())), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_part_of_the_graph_is_normalised_again(relations: dict[str, sp.csr_matrix]) -> None:
    part = matrices(to_heterograph(relations), items=np.array([3, 0, 1]))["together"].toarray()
    # Item 3 loses its neighbour 2 and hears from 0 alone; so does item 0, which is left with 1.
    assert part.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_encoders_read_the_same_numbers(relations: dict[str, sp.csr_matrix]) -> None:
    sparse = to_torch(matrices(to_heterograph(relations)))["together"]
    assert sparse.indptr.tolist() == [0, 2, 3, 3, 5]
    assert sparse.values.dtype == torch.float32
    assert sparse.shape == (4, 4)
