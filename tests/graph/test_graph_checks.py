"""Counts of a graph, and what makes it unfit to learn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from components.core.errors import ContractError
from components.core.sections import GraphSettings
from components.graph.checks import GraphCounts, count, refuse_unfit
from components.model.item_graph import NodeRelation, to_heterograph


def graph_of(*edges: tuple[int, int], num_items: int = 4) -> Any:
    """Edges (hears, speaks) of relation 'met', beside a relation without any."""
    hears, speaks = zip(*edges, strict=True) if edges else ((), ())
    met = sp.csr_matrix((np.ones(len(edges), dtype=np.float32), (hears, speaks)), shape=(num_items, num_items))
    return to_heterograph({"met": met, "alike": sp.csr_matrix((num_items, num_items), dtype=np.float32)})


def counts_of(*edges: tuple[int, int], num_items: int = 4, warm: int | None = None) -> GraphCounts:
    is_warm_I = torch.arange(num_items) < (num_items if warm is None else warm)
    return count(graph_of(*edges, num_items=num_items), is_warm_I=is_warm_I)


def test_counts_are_read_off_the_graph() -> None:
    counts = counts_of((0, 1), (2, 1), (1, 0), warm=3)
    assert (counts.items, counts.warm_items, counts.edges) == (4, 3, 3)
    assert (counts.isolated_items, counts.isolated_warm_items) == (1, 0)
    met, alike = counts.relations["met"], counts.relations["alike"]
    assert (met.edges, met.isolated_items, met.largest_hub_share) == (3, 1, pytest.approx(2 / 3))
    assert (alike.edges, alike.isolated_items, alike.largest_hub_share) == (0, 4, 0)
    assert counts.to_json()["relations"]["met"]["edges"] == 3


def test_a_fit_graph_passes() -> None:
    counts = counts_of((0, 1), (1, 0), (2, 0), (3, 0))
    refuse_unfit(counts, GraphSettings())
    assert (counts.warm_items, counts.isolated_warm_items) == (4, 0)


def test_a_log_in_which_nothing_is_known_well_enough_is_refused() -> None:
    sentence = r"^No item has 5 users before the cutoff\. Lower graph\.min_item_users, or give a longer log\.$"
    with pytest.raises(ContractError, match=sentence):
        refuse_unfit(counts_of((0, 1), warm=0), GraphSettings())


def test_a_graph_without_edges_is_refused() -> None:
    with pytest.raises(ContractError, match=r"^The item graph has no edge\. Give a longer log, or a catalogue"):
        refuse_unfit(counts_of(), GraphSettings())


def test_too_many_isolated_items_are_refused() -> None:
    counts = counts_of((0, 1), (1, 0))  # half of four hear from nobody
    refuse_unfit(counts, GraphSettings(max_isolated_share=0.5))
    with pytest.raises(ContractError, match=r"^50% of the items with users have no neighbour; .* allows 40%\."):
        refuse_unfit(counts, GraphSettings(max_isolated_share=0.4))


def test_a_hub_that_speaks_to_many_is_refused_and_a_small_relation_has_none() -> None:
    def star(num_items: int) -> GraphCounts:
        """Everybody hears from item 0, and from the next item."""
        spokes = [(item, 0) for item in range(1, num_items)]
        ring = [(item, (item + 1) % num_items) for item in range(num_items - 1)]
        return counts_of(*spokes, *ring, num_items=num_items)

    sentence = r"^One item holds 50% of the edges of 'met'; graph\.max_hub_share allows 20%\. It is probably a bag"
    with pytest.raises(ContractError, match=sentence):
        refuse_unfit(star(502), GraphSettings())
    refuse_unfit(star(502), GraphSettings(max_hub_share=0.6))
    refuse_unfit(star(400), GraphSettings())


def test_other_nodes_are_counted_apart_and_are_no_hubs() -> None:
    """One value that all items share; nobody hears from item 3 in any other way."""
    met = sp.csr_matrix(([1.0, 1.0], ([0, 1], [1, 0])), shape=(4, 4), dtype=np.float32)
    gather = sp.csr_matrix(np.full((1, 4), 0.25, dtype=np.float32))
    shared = NodeRelation(kind="value", names=["tea"], gather=gather, spread=sp.csr_matrix(np.ones((4, 1), np.float32)))
    counts = count(to_heterograph({"met": met, "shares": shared}), is_warm_I=torch.ones(4, dtype=torch.bool))
    assert (counts.items, counts.other_nodes, counts.edges) == (4, {"value": 1}, 2 + 8)
    assert (counts.isolated_items, counts.isolated_warm_items) == (0, 0)
    shares = counts.relations["shares"]
    assert (shares.edges, shares.isolated_items, shares.largest_hub_share) == (8, 0, 0)
    refuse_unfit(counts, GraphSettings())
