"""Rows, panels and queries as declarations, and their JSON by Grafana's own foundation SDK (Grafana 11)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS = 24
STAT_HEIGHT, GRAPH_HEIGHT = 4, 8

Shape = Literal["lines", "bars", "stacked", "number", "name"]


@dataclass(frozen=True)
class Query:
    """PromQL and what a series is called, such as '{{step}}'."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture with one question that it answers."""

    title: str
    about: str
    """What it shows and when to worry; shown behind the panel's (i)."""
    queries: Sequence[Query]
    shape: Shape = "lines"
    unit: str = "short"
    width: int = 8
    warn: float | None = None
    bad: float | None = None
    """From these values on it turns yellow, or red."""


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice at the top, filled from a label: `label_values(basketweave_step_seconds, project)`."""

    name: str
    label: str
    query: str


@dataclass(frozen=True, kw_only=True)
class Board:
    name: str
    """Of its file and its uid."""
    title: str
    about: str
    rows: Sequence[Row]
    variables: Sequence[Variable]
    since: str = "now-6h"


def to_json(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(f"basketweave-{board.name}")
        .description(board.about)
        .tags(["basketweave"])
        .refresh("30s")
        .time(board.since, "now")
        .timezone("browser")
        .readonly()
        .link(
            dashboard.DashboardLink("Basketweave")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["basketweave"])
            .as_dropdown(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in board.variables:
        builder = builder.with_variable(
            dashboard.QueryVariable(variable.name)
            .label(variable.label)
            .query(variable.query)
            .datasource(DATASOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
        )
    for row in board.rows:
        builder = builder.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            builder = builder.with_panel(_panel(panel))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel:
    assert 0 < panel.width <= COLUMNS, panel.title
    built = _number(panel) if panel.shape in ("number", "name") else _graph(panel)
    built = built.title(panel.title).description(panel.about).unit(panel.unit).datasource(DATASOURCE).span(panel.width)
    if panel.warn is not None or panel.bad is not None:
        built = built.thresholds(_thresholds(panel))
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + place)).legend_format(query.legend)
        # A number is the value now; a graph asks for the whole range.
        target = target.instant() if panel.shape in ("number", "name") else target.range()
        built = built.with_target(target.datasource(DATASOURCE))
    return built


def _graph(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .height(GRAPH_HEIGHT)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if panel.shape in ("bars", "stacked"):
        built = built.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    if panel.shape == "bars":
        built = built.draw_style(GraphDrawStyle.BARS).fill_opacity(80)
    return built


def _number(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .height(STAT_HEIGHT)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return built.text_mode(BigValueTextMode.NAME) if panel.shape == "name" else built


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if panel.warn is not None:
        steps.append(Threshold(value=panel.warn, color="orange"))
    if panel.bad is not None:
        steps.append(Threshold(value=panel.bad, color="red"))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
