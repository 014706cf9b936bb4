"""Drift: what happens now beside what the live bundle was trained on."""

from __future__ import annotations

from charts.dashboards.panels import Board, Panel, Query, Row, Variable
from charts.dashboards.pipeline import PROJECT, latest

LOOKED = '{project=~"$project", step="monitor"}'
VALUE, THRESHOLD, ALARM = (latest(f"basketweave_drift_{name}", "measure") for name in ("value", "threshold", "alarm"))

BOARD = Board(
    name="drift",
    title="Basketweave / Drift",
    about="Each measure of drift, the limit learnt in quiet times, what raised an alarm, and what was asked for.",
    variables=[Variable(name="project", label="Project", query="label_values(basketweave_step_seconds, project)")],
    since="now-30d",
    rows=[
        Row(
            title="Now",
            panels=[
                Panel(
                    title="Alarms",
                    about="Measures beyond their limits: the alert BasketweaveDrift.",
                    queries=[Query(f"sum(basketweave_drift_alarm{PROJECT})")],
                    shape="number",
                    bad=1,
                    width=6,
                ),
                Panel(
                    title="Windows in a row that alarmed",
                    about="Up to the newest; monitor.retrain_after_windows of them ask for a retrain.",
                    queries=[Query(latest("basketweave_drift_alarmed_windows"), "{{project}}")],
                    shape="number",
                    warn=1,
                    width=6,
                ),
                Panel(
                    title="Retrains asked for",
                    about="By drift, bounded by a cool-down and a weekly budget.",
                    queries=[Query(latest("basketweave_drift_retrain_requests"), "{{project}}")],
                    shape="number",
                    width=6,
                ),
                Panel(
                    title="Since the last look",
                    about="By the wall clock: the DAG monitoring runs hourly and after each run.",
                    queries=[Query(f"time() - max(basketweave_step_finished_timestamp_seconds{LOOKED})")],
                    shape="number",
                    unit="s",
                    width=6,
                ),
            ],
        ),
        Row(
            title="Measures",
            panels=[
                Panel(
                    title="Nearest to a limit",
                    about="Distance from the value to its nearest limit, as a share of the limit, the ten nearest.",
                    queries=[Query(f"bottomk(10, abs({VALUE} - {THRESHOLD}) / abs({THRESHOLD} != 0))", "{{measure}}")],
                    unit="percentunit",
                    width=24,
                ),
                Panel(
                    title="Values",
                    about="Each measure in its newest window or run.",
                    queries=[Query(VALUE, "{{measure}}")],
                    width=12,
                ),
                Panel(
                    title="Limits",
                    about="Learnt from the last quiet windows, with a bound by hand; the one nearest to the value.",
                    queries=[Query(THRESHOLD, "{{measure}}")],
                    width=12,
                ),
                Panel(
                    title="Alarms by measure",
                    about="1 where the measure is beyond its limits.",
                    queries=[Query(ALARM, "{{measure}}")],
                    shape="bars",
                    width=24,
                ),
            ],
        ),
    ],
)
