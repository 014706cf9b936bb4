"""What the pipeline holds beside what the bundle was made with, on graphs and stores that can be counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.core.errors import FeatureStoreError
from components.monitor import holdings as held
from components.monitor.holdings import GraphEdges, Holdings

NOW = datetime(2024, 3, 10, tzinfo=UTC)


def graph(items: list[str], edges: list[tuple[int, int]]) -> GraphEdges:
    sources, targets = zip(*edges, strict=True)
    return GraphEdges(
        item_ids=pa.array(items, pa.string()), sources=np.array(sources, np.int64), targets=np.array(targets, np.int64)
    )


def test_edge_churn_is_of_pairs_of_items_whatever_their_rows() -> None:
    live = graph(["a", "b", "c"], [(0, 1), (1, 0), (1, 2)])
    newest = graph(["c", "b", "a", "d"], [(2, 1), (1, 2), (3, 1)])  # a-b, b-a, and d-b of a new item
    holdings = Holdings()
    held.look_at_graph(holdings, live=live, newest=newest)
    assert holdings.now["edge_churn"].value == pytest.approx(1 - 2 / 4)
    # One item is the busiest hundredth: b sends 2 of 3 edges, then a, b or d one each.
    assert holdings.then["hub_share"] == pytest.approx(2 / 3)
    assert holdings.now["hub_share"].value == pytest.approx(1 / 3)


def test_the_same_graph_has_not_moved() -> None:
    live = graph(["a", "b", "c"], [(0, 1), (1, 0), (1, 2)])
    holdings = Holdings()
    held.look_at_graph(holdings, live=live, newest=live)
    assert {name: holdings.now[name].value for name in ("edge_churn", "degree_psi")} == {
        "edge_churn": 0.0,
        "degree_psi": 0.0,
    }


def test_catalogue_churn_counts_items_on_either_side() -> None:
    holdings = Holdings()
    held.look_at_catalogue(holdings, item_ids=pa.array(["a", "b", "c"]), catalogue_ids=pa.array(["b", "c", "d"]))
    assert holdings.now["catalogue_churn"].value == pytest.approx(0.5)


def look(monkeypatch: pytest.MonkeyPatch, online: Any, *, offline: dict[str, Any] | None = None) -> Holdings:
    monkeypatch.setattr(held, "_offline_rows", lambda *args: offline or {})
    holdings = Holdings()
    artifact: Any = SimpleNamespace()
    held.look_at_feature_store(
        holdings, online=online, offline=(artifact, NOW - timedelta(days=1)), as_of=NOW, names=("frequency",)
    )
    return holdings


def test_age_fallback_and_skew_are_read_off_the_online_store(monkeypatch: pytest.MonkeyPatch) -> None:
    yesterday = NOW - timedelta(days=1)
    online = {
        "ann": (yesterday, ["tea"], {"frequency": 2}),
        "bob": (yesterday, ["milk"], {"frequency": 1}),
        "eve": None,
        "old": (NOW - timedelta(days=9), ["tea"], {"frequency": 5}),
    }
    offline = {
        "ann": (["tea"], {"frequency": 2}),
        "bob": (["milk"], {"frequency": 3}),
        "old": (["soap"], {"frequency": 5}),
    }
    now = look(monkeypatch, online, offline=offline).now
    assert now["fallback_share"].value == pytest.approx(1 / 4)
    assert now["feature_age_days"].value == pytest.approx(1)
    # Ann agrees, bob does not; the old one is of another moment and says nothing of skew.
    assert (now["serving_skew"].value, now["serving_skew"].count) == (pytest.approx(1 / 2), 2)


@pytest.mark.parametrize("online", [FeatureStoreError("The online feature store cannot be read."), {}])
def test_a_store_that_is_down_gives_no_figures_and_the_reason(monkeypatch: pytest.MonkeyPatch, online: Any) -> None:
    holdings = look(monkeypatch, online)
    assert holdings.now == {}
    assert set(holdings.absent) == {"fallback_share", "feature_age_days", "serving_skew"}
    assert all(holdings.absent.values())
