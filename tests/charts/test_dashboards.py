"""The dashboards as files: fresh, about metrics that exist, with a panel for each metric of ours, in the chart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from exported_metrics import OF_PROMETHEUS, exported, named

from charts.dashboards.__main__ import BOARDS, FOLDER, files

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


def targets() -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, query) of every query in the written files."""
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield path.stem, panel["title"], target["expr"]


def test_the_files_are_what_the_code_makes() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert written == files(), "stale: run python -m charts.dashboards"


def test_a_query_names_only_metrics_that_somebody_exports() -> None:
    known = set(exported()) | OF_PROMETHEUS
    for board, panel, expr in targets():
        assert named(expr), (board, panel)
        assert named(expr) <= known, (board, panel, named(expr) - known)


def test_every_metric_of_ours_has_a_panel() -> None:
    shown = {exported().get(name, name) for _, _, expr in targets() for name in named(expr)}
    assert set(exported().values()) - shown == set()


def test_every_panel_says_what_it_is_for_and_titles_are_told_apart() -> None:
    for board in BOARDS:
        panels = [panel for row in board.rows for panel in row.panels]
        titles = [panel.title for panel in panels]
        assert len(set(titles)) == len(titles), board.name
        for panel in panels:
            assert panel.about.endswith("."), (board.name, panel.title)
            assert panel.queries, (board.name, panel.title)


def test_panels_lie_inside_the_grid_and_on_no_other() -> None:
    for path in FOLDER.glob("*.json"):
        cells: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            own = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in own) < 24, (path.name, panel["title"])
            assert not own & cells, (path.name, panel["title"])
            cells |= own


def test_the_sidecar_finds_each_dashboard_by_its_label(render: Render) -> None:
    manifests = render("large", "metrics.dashboards.enabled=true")
    found = {
        name: content
        for (kind, _), manifest in manifests.items()
        if kind == "ConfigMap" and manifest["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, content in manifest["data"].items()
    }
    assert set(found) == {f"basketweave-{name}" for name in files()}
    for name, content in found.items():
        assert json.loads(content) == json.loads(files()[name.removeprefix("basketweave-")])
        assert len(content) < 1_000_000  # a ConfigMap holds a mebibyte


@pytest.mark.parametrize("values", ["laptop", "small", "large"])
def test_dashboards_and_alerts_are_installed_only_where_they_are_wanted(render: Render, values: str) -> None:
    manifests = render(values, "metrics.dashboards.enabled=false", "metrics.prometheusRule.enabled=false")
    assert not [name for kind, name in manifests if "dashboard" in name or kind == "PrometheusRule"]
