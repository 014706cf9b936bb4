"""The service: who asks, how fast it answers, with what, and by which bundle."""

from __future__ import annotations

from charts.dashboards.panels import Board, Panel, Query, Row, Variable

JOB = '{job=~"$job"}'


def _where(more: str = "") -> str:
    return f'{{job=~"$job"{", " + more if more else ""}}}'


def _rate(metric: str, *, by: str = "", where: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{_where(where)}[$__rate_interval]))"


def _quantile(share: float, metric: str, *, by: str = "", where: str = "") -> str:
    buckets = _rate(f"{metric}_bucket", by=", ".join(filter(None, ["le", by])), where=where)
    return f"histogram_quantile({share}, {buckets})"


def _mean(metric: str, *, by: str = "") -> str:
    return f"{_rate(f'{metric}_sum', by=by)} / {_rate(f'{metric}_count', by=by)}"


ASKED = 'endpoint="/recommend"'
SERVER_ERRORS = 'status=~"5.."'

BOARD = Board(
    name="service",
    title="Basketweave / Service",
    about="The recommendation service: traffic, latency, what lists are made of, bundle and rollout.",
    variables=[Variable(name="job", label="Service", query="label_values(basketweave_requests_total, job)")],
    since="now-3h",
    rows=[
        Row(
            title="Now",
            panels=[
                Panel(
                    title="Pods that answer",
                    about="Scraped successfully. 0 for five minutes is the alert BasketweaveDown.",
                    queries=[Query(f"sum(up{JOB})")],
                    shape="number",
                    width=4,
                ),
                Panel(
                    title="Bundle that serves",
                    about="By hash. Two for longer than a minute: a worker refuses the new one.",
                    queries=[Query(f"max by (bundle) (basketweave_bundle_info{JOB}) == 1", "{{bundle}}")],
                    shape="name",
                    width=5,
                ),
                Panel(
                    title="Trained until",
                    about="The cutoff of what the bundle was trained on.",
                    queries=[Query(f"max by (cutoff) (basketweave_bundle_info{JOB}) == 1", "{{cutoff}}")],
                    shape="name",
                    width=4,
                ),
                Panel(
                    title="Requests a second",
                    about="All endpoints.",
                    queries=[Query(_rate("basketweave_requests_total"))],
                    shape="number",
                    unit="reqps",
                    width=4,
                ),
                Panel(
                    title="Errors",
                    about="Share of answers with status 5xx.",
                    queries=[
                        Query(
                            f"({_rate('basketweave_requests_total', where=SERVER_ERRORS)} or vector(0)) "
                            f"/ {_rate('basketweave_requests_total')}"
                        )
                    ],
                    shape="number",
                    unit="percentunit",
                    warn=0.001,
                    bad=0.01,
                    width=3,
                ),
                Panel(
                    title="p99",
                    about="One recommendation in a hundred takes longer.",
                    queries=[Query(_quantile(0.99, "basketweave_request_seconds", where=ASKED))],
                    shape="number",
                    unit="s",
                    warn=0.2,
                    bad=0.5,
                    width=4,
                ),
            ],
        ),
        Row(
            title="Requests",
            panels=[
                Panel(
                    title="By endpoint",
                    about="Route templates, never paths.",
                    queries=[Query(_rate("basketweave_requests_total", by="endpoint"), "{{endpoint}}")],
                    shape="stacked",
                    unit="reqps",
                ),
                Panel(
                    title="By status",
                    about="4xx is the callers', 5xx ours, 429 load that was shed.",
                    queries=[Query(_rate("basketweave_requests_total", by="status"), "{{status}}")],
                    shape="stacked",
                    unit="reqps",
                ),
                Panel(
                    title="Time to recommend",
                    about="From the request to the end of its answer.",
                    queries=[
                        Query(_quantile(share, "basketweave_request_seconds", where=ASKED), name)
                        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
                    ],
                    unit="s",
                ),
                Panel(
                    title="Refused by reason",
                    about="Before any work was done: rate limit, role of the key, size or speed of the body.",
                    queries=[Query(_rate("basketweave_refused_total", by="reason"), "{{reason}}")],
                    shape="stacked",
                    unit="reqps",
                    width=12,
                ),
                Panel(
                    title="Events by kind and outcome",
                    about="Clicks, impressions and purchases that callers report; 'refused' ones teach nothing.",
                    queries=[Query(_rate("basketweave_events_total", by="kind, outcome"), "{{kind}} {{outcome}}")],
                    shape="stacked",
                    width=12,
                ),
            ],
        ),
        Row(
            title="Lists",
            panels=[
                Panel(
                    title="Where histories came from",
                    about="The online store, the request itself, or neither: then popularity answers.",
                    queries=[Query(_rate("basketweave_recommendations_total", by="source"), "{{source}}")],
                    shape="stacked",
                    unit="reqps",
                ),
                Panel(
                    title="By bundle",
                    about="Two at once during a rollout or a swap.",
                    queries=[Query(_rate("basketweave_recommendations_total", by="bundle"), "{{bundle}}")],
                    shape="stacked",
                    unit="reqps",
                ),
                Panel(
                    title="Fallbacks by reason",
                    about="Answers that had to do without something. 'online_store': features cannot be read.",
                    queries=[Query(_rate("basketweave_fallbacks_total", by="reason"), "{{reason}}")],
                    shape="stacked",
                    unit="reqps",
                ),
                Panel(
                    title="Empty lists",
                    about="Share of lists without an item: filters that leave nothing.",
                    queries=[
                        Query(
                            f"{_rate('basketweave_empty_lists_total')} / {_rate('basketweave_recommendations_total')}"
                        )
                    ],
                    unit="percentunit",
                ),
                Panel(
                    title="Age of features",
                    about="By the service's clock. Growing steadily: features are not materialised any more.",
                    queries=[
                        Query(_quantile(0.5, "basketweave_feature_age_seconds"), "p50"),
                        Query(_quantile(0.95, "basketweave_feature_age_seconds"), "p95"),
                    ],
                    unit="s",
                ),
                Panel(
                    title="What lists look like",
                    about="Of logged lists: mean popularity percentile of their items, and categories an item.",
                    queries=[Query(_mean("basketweave_list_statistic", by="statistic"), "{{statistic}}")],
                    unit="percentunit",
                ),
                Panel(
                    title="Lists chosen for the log",
                    about="Written, or dropped because the disk or the writer could not follow.",
                    queries=[Query(_rate("basketweave_served_log_total", by="outcome"), "{{outcome}}")],
                    shape="stacked",
                    unit="reqps",
                ),
            ],
        ),
        Row(
            title="Bundle and rollout",
            panels=[
                Panel(
                    title="Bundles loaded or refused",
                    about="A refused one had a wrong hash or golden answer; the one before goes on serving.",
                    queries=[Query(f"sum by (outcome) (basketweave_bundle_loads_total{JOB})", "{{outcome}}")],
                ),
                Panel(
                    title="Rollout",
                    about="1 while the stage with this challenger runs; nothing: nothing is being tried.",
                    queries=[
                        Query(f"max by (stage, challenger) (basketweave_rollout_info{JOB})", "{{stage}} {{challenger}}")
                    ],
                    shape="bars",
                ),
                Panel(
                    title="Last rollout",
                    about="How it ended, or that it runs: the alert BasketweaveRolloutAborted.",
                    queries=[
                        Query("max by (project, outcome) (basketweave_rollout_outcome) == 1", "{{project}} {{outcome}}")
                    ],
                    shape="name",
                ),
                Panel(
                    title="Shadow overlap",
                    about="Share of the champion's list that the challenger, answering unseen, has too.",
                    queries=[Query(_mean("basketweave_shadow_overlap"), "overlap")],
                    unit="percentunit",
                ),
                Panel(
                    title="Requests by arm and outcome",
                    about="'error': the champion stood in for the challenger.",
                    queries=[Query(_rate("basketweave_arm_requests_total", by="arm, outcome"), "{{arm}} {{outcome}}")],
                    shape="stacked",
                    unit="reqps",
                ),
                Panel(
                    title="p95 by arm",
                    about="CPU time while the challenger answers unseen.",
                    queries=[Query(_quantile(0.95, "basketweave_arm_seconds", by="arm"), "{{arm}}")],
                    unit="s",
                ),
                Panel(
                    title="Clicks an impression by arm",
                    about="Of the challenger's and the control's users, who are as many.",
                    queries=[
                        Query(
                            f"{_rate('basketweave_arm_clicks_total', by='arm')} "
                            f"/ {_rate('basketweave_arm_impressions_total', by='arm')}",
                            "{{arm}}",
                        )
                    ],
                    unit="percentunit",
                ),
            ],
        ),
    ],
)
