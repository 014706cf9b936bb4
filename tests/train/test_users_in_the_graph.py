"""Users among a graph's nodes come with what was known of them at the window's start, scaled as users are elsewhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
import toy_windows
from safetensors.torch import load_file
from trained_shop import train_shop

from components.core.schemas import TIMESTAMP
from components.model.bundle import Bundle
from components.model.propagation import SparseMatrix, TwoHop
from components.model.user_vector import StatisticsScaling
from components.train.fit import standardised
from components.train.world import STATISTICS, World, with_user_features

MOMENT = datetime(2024, 3, 1, tzinfo=UTC)


def users(count: int, *, features: torch.Tensor | None = None) -> TwoHop:
    gather = sp.csr_matrix((count, toy_windows.NUM_ITEMS), dtype=np.float32)
    return TwoHop(SparseMatrix.from_scipy(gather), SparseMatrix.from_scipy(sp.csr_matrix(gather.T)), features)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Ann and Bob were known at the moment, Bob otherwise the day before; the nodes' rows are in no order."""
    rows = [("ann", MOMENT, 1.0), ("bob", MOMENT, 2.0), ("bob", MOMENT - timedelta(days=1), 9.0)]
    columns = {
        "user_id": pa.array([user for user, _, _ in rows]),
        "event_timestamp": pa.array([moment for _, moment, _ in rows], TIMESTAMP),
        **{name: pa.array([value + place for _, _, value in rows]) for place, name in enumerate(STATISTICS)},
    }
    pq.write_table(pa.table(columns), tmp_path / "user_statistics.parquet")
    kinds = ["user", "attribute", "user", "user"]
    nodes = pa.table({"kind": kinds, "node": [2, 0, 1, 0], "name": ["ann", "brand=x", "stranger", "bob"]})
    tables = {"cutoff=20240301T000000/other_nodes.parquet": nodes}
    features = SimpleNamespace(path=lambda name: tmp_path / name)
    return cast(World, SimpleNamespace(features=features, graph=SimpleNamespace(table=tables.__getitem__)))


def test_user_nodes_carry_their_statistics_of_the_moment(world: World) -> None:
    graph = with_user_features({"user_item": users(3)}, world, MOMENT)
    relation = graph["user_item"]
    assert isinstance(relation, TwoHop)
    assert relation.features_NF is not None
    assert relation.features_NF[[0, 2]].tolist() == [[2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6]]
    assert torch.isnan(relation.features_NF[1]).all()


def test_users_are_convolved_from_log_to_bundle_and_none_is_in_it(tmp_path: Path) -> None:
    shop = train_shop(
        tmp_path,
        graph={"relations": ("co_purchase", "user_item")},
        train={"encoder": "user_item", "user_pooling": "attention", "max_epochs": 1},
    )
    folder = Path(shop.refs["bundle"].uri)
    bundle = Bundle.load(folder)
    bundle.golden.check(bundle.scorer)
    gates = bundle.facts["relation_gates"]
    assert set(gates) == {"co_purchase", "user_item"}
    assert sum(gates.values()) == pytest.approx(1)
    # What is known of users was learnt from, and so was the history's attention.
    assert load_file(folder / "encoder.safetensors")["encoder.features_LFD"].abs().max() > 0
    assert load_file(folder / "user_vector.safetensors")["attention.item_D"].abs().max() > 0
    assert pq.read_table(folder / "neighbours.parquet")["relation"].unique().to_pylist() == ["co_purchase"]


def test_a_graph_without_users_asks_nobody(world: World) -> None:
    graph = toy_windows.ring().graph
    assert with_user_features(graph, world, MOMENT) is graph


def test_users_in_the_graph_are_standardised_as_those_of_the_window() -> None:
    raw = torch.tensor([[torch.e - 1], [torch.nan]])
    window = replace(toy_windows.ring(num_users=2), statistics_BF=raw)
    window = replace(window, graph={**window.graph, "user_item": users(2, features=raw)})
    scaled = standardised(StatisticsScaling(("frequency",), (0.5,), (0.25,)), window)
    relation = scaled.graph["user_item"]
    assert isinstance(relation, TwoHop)
    assert relation.features_NF is not None
    assert scaled.statistics_BF.tolist()[0] == relation.features_NF.tolist()[0] == [pytest.approx(2)]
    assert torch.isnan(relation.features_NF[1]).all()
    assert scaled.graph["met"] is window.graph["met"]
