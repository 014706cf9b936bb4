"""Every panel's query on a real Prometheus that scraped the real service and the real pipeline returns data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched_shop import WatchedShop

DASHBOARDS = Path(__file__).parents[2] / "charts" / "basketweave" / "dashboards"
VARIABLES = {"$__rate_interval": "10m", "$job": "basketweave", "$project": "shop"}

pytestmark = pytest.mark.slow


def queries() -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, query with its variables filled in)."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expr = target["expr"]
                for name, value in VARIABLES.items():
                    expr = expr.replace(name, value)
                assert "$" not in expr, expr
                yield path.stem, panel["title"], expr


def test_every_panel_has_data(shop: WatchedShop) -> None:
    empty = [
        (board, panel, expr)
        for board, panel, expr in queries()
        if not any(math.isfinite(float(series["value"][1])) for series in shop.ask(expr))
    ]
    assert empty == []


def test_every_metric_of_ours_that_was_scraped_has_a_panel(shop: WatchedShop) -> None:
    names = json.loads(shop.prometheus.get("/api/v1/label/__name__/values"))["data"]
    ours = {name for name in names if name.startswith("basketweave_") and not name.endswith("_created")}
    assert len(ours) > 30
    shown = "\n".join(expr for _, _, expr in queries())
    for name in ours:
        stem = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        assert stem in shown, name


def test_labels_hold_no_user_no_item_and_no_path(shop: WatchedShop) -> None:
    series = json.loads(shop.prometheus.get('/api/v1/series?match[]={__name__=~"basketweave_.*"}'))["data"]
    labels = {name for one in series for name in one}
    assert not {name for name in labels if "user" in name or "item" in name}
    values = {value for one in series for name, value in one.items() if name != "endpoint"}
    assert "nobody-of-this-name" not in values
    assert len(series) < 2000
    endpoints = {one["endpoint"] for one in series if "endpoint" in one}
    assert "other" in endpoints
    assert "/no-such-page" not in endpoints


def test_the_rules_are_healthy_and_a_rule_of_the_budget_is_pending_or_firing(shop: WatchedShop) -> None:
    groups = json.loads(shop.prometheus.get("/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 12
    assert {rule["health"] for rule in rules} == {"ok"}
    # The budget of these rules is a fraction of a cent, and the run has a price.
    [cost] = [rule for rule in rules if rule["name"] == "BasketweaveCost"]
    assert cost["state"] in {"pending", "firing"}
