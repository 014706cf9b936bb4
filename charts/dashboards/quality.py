"""Data quality: what the log brought, what was put aside and why, and how old it is."""

from __future__ import annotations

from charts.dashboards.panels import Board, Panel, Query, Row, Variable
from charts.dashboards.pipeline import PROJECT, latest

PUT_ASIDE = 'basketweave_source_rows{project=~"$project", step="validate", outcome="quarantined"}'
AS_OF = "basketweave_step_as_of_timestamp_seconds"
ALL_ROWS = 'basketweave_source_rows{project=~"$project", step="validate"}'

BOARD = Board(
    name="data-quality",
    title="Basketweave / Data quality",
    about="Rows kept, rejected and quarantined at the last run, by reason; checks; age of the log.",
    variables=[Variable(name="project", label="Project", query="label_values(basketweave_step_seconds, project)")],
    since="now-30d",
    rows=[
        Row(
            title="Last run",
            panels=[
                Panel(
                    title="Quarantined",
                    about="Share of rows that validate put aside: the alert BasketweaveQuarantine.",
                    queries=[Query(f"sum({PUT_ASIDE}) / sum({ALL_ROWS})")],
                    shape="number",
                    unit="percentunit",
                    warn=0.02,
                    bad=0.05,
                    width=6,
                ),
                Panel(
                    title="Checks",
                    about="'quarantined': rows broke a rule and were put aside; 'failed' stops the run.",
                    queries=[Query(latest("basketweave_checks", "outcome"), "{{outcome}}")],
                    shape="number",
                    width=8,
                ),
                Panel(
                    title="Since the log's last day began",
                    about="By the wall clock: a live log stays under two days.",
                    queries=[Query(f"time() - {latest('basketweave_source_last_day_timestamp_seconds')}")],
                    shape="number",
                    unit="s",
                    width=5,
                ),
                Panel(
                    title="Age of what each artifact knows",
                    about="By the wall clock, since the moment as of which it was made; the oldest.",
                    queries=[
                        Query(f"max(time() - {AS_OF}{PROJECT})", "oldest"),
                    ],
                    shape="number",
                    unit="s",
                    width=5,
                ),
            ],
        ),
        Row(
            title="Rows",
            panels=[
                Panel(
                    title="What became of the log's rows",
                    about="Ingest: kept, duplicate or unreadable. Validate: kept or quarantined.",
                    queries=[Query(latest("basketweave_source_rows", "step", "outcome"), "{{step}} {{outcome}}")],
                    width=12,
                ),
                Panel(
                    title="Quarantined by reason",
                    about="A row that breaks two rules counts under both.",
                    queries=[Query(latest("basketweave_quarantined_rows", "reason"), "{{reason}}")],
                    shape="bars",
                    width=12,
                ),
                Panel(
                    title="Rejected by reason",
                    about="Rows that could not be read as the contract's types.",
                    queries=[Query(latest("basketweave_rejected_rows", "reason"), "{{reason}}")],
                    shape="bars",
                    width=12,
                ),
                Panel(
                    title="Artifacts' as-of",
                    about="By the wall clock. Steps that stand still while others move were not run again.",
                    queries=[Query(f"time() - {latest(AS_OF, 'step')}", "{{step}}")],
                    unit="s",
                    width=12,
                ),
            ],
        ),
    ],
)
