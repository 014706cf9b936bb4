"""The item graph in memory, on disk, and as matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch

from components.model.item_graph import matrices, read_graph, to_heterograph, to_torch, write_edges

NAMES = ("alone", "together")


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


def test_what_is_written_is_read_back_equal(relations: dict[str, sp.csr_matrix], tmp_path: Path) -> None:
    graph = to_heterograph(relations)
    write_edges(graph, tmp_path / "edges.parquet")
    back = read_graph(tmp_path / "edges.parquet", num_items=4, relations=NAMES)
    assert sorted(back.etypes) == sorted(graph.etypes)
    assert back.num_nodes() == 4
    found = matrices(back)
    for name, matrix in relations.items():
        np.testing.assert_array_equal(found[name].toarray(), matrix.toarray())


def test_the_file_is_plain_sorted_rows(relations: dict[str, sp.csr_matrix], tmp_path: Path) -> None:
    write_edges(to_heterograph(relations), tmp_path / "edges.parquet")
    rows = pq.read_table(tmp_path / "edges.parquet").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("together", 1, 0, 0.75),
        ("together", 2, 0, 0.25),
        ("together", 0, 1, 1),
        ("together", 0, 3, 0.5),
        ("together", 2, 3, 0.5),
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
