"""Drift: what happens now beside what the live bundle was trained on."""

from __future__ import annotations

from charts.dashboards.panels import Board, Panel, Query, Row, Variable
from charts.dashboards.pipeline import latest
from components.core.pipeline_metrics import METRICS

PREFIX = "basketweave_drift_"


def _panel(name: str) -> Panel:
    """One of the monitor's metrics as it is."""
    metric = METRICS[name]
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "{{project}}"
    title = name.removeprefix(PREFIX).replace("_", " ").capitalize()
    return Panel(title=title, about=metric.help, queries=[Query(latest(name, *metric.labels), legend)], width=12)


BOARD = Board(
    name="drift",
    title="Basketweave / Drift",
    about="Each measure of drift, the threshold learnt in quiet times, and what raised an alarm.",
    variables=[Variable(name="project", label="Project", query="label_values(basketweave_step_seconds, project)")],
    since="now-30d",
    rows=[Row(title="Measures", panels=[_panel(name) for name in METRICS if name.startswith(PREFIX)])],
)
