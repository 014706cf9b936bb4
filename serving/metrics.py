"""What Prometheus sees. Labels are bounded: routes by their template, never a path; bundles by hash; no user, no item.

BentoML's own request metrics are off, because they are labelled by path, and a path can hold a user id.
"""

from __future__ import annotations

import time

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DAY_SECONDS = 86_400

REQUEST_SECONDS = Histogram(
    "basketweave_request_seconds",
    "Time from a request to the end of its answer.",
    ["endpoint"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
REQUESTS = Counter("basketweave_requests_total", "Answered requests.", ["endpoint", "status"])
RECOMMENDATIONS = Counter(
    "basketweave_recommendations_total", "Lists by where the user's history came from.", ["source", "bundle"]
)
EMPTY_LISTS = Counter("basketweave_empty_lists_total", "Lists without an item.")
FALLBACKS = Counter("basketweave_fallbacks_total", "Answers that had to do without something.", ["reason"])
FEATURE_AGE = Histogram(
    "basketweave_feature_age_seconds",
    "Age of the online features that an answer used, judged against the service's clock.",
    buckets=[60, 3600, *(days * DAY_SECONDS for days in (1, 2, 3, 7, 14, 28, 56))],
)
EVENTS = Counter("basketweave_events_total", "Events sent to the service, by what became of them.", ["kind", "outcome"])
REFUSED = Counter("basketweave_refused_total", "Requests refused before they were worked on.", ["reason"])
LIST_STATISTIC = Histogram(
    "basketweave_list_statistic",
    "Of logged lists: mean popularity percentile of their items, and categories an item.",
    ["statistic"],
    buckets=[step / 10 for step in range(1, 11)],
)
SERVED_LOG = Counter("basketweave_served_log_total", "Lists chosen for the log, by what became of them.", ["outcome"])
BUNDLE_INFO = Gauge(
    "basketweave_bundle_info",
    "1 for the bundle that serves, 0 for one that served before.",
    ["bundle", "cutoff"],
    multiprocess_mode="mostrecent",
)
BUNDLE_LOADS = Counter("basketweave_bundle_loads_total", "Bundles loaded by a worker, or refused.", ["outcome"])
ARM_REQUESTS = Counter(
    "basketweave_arm_requests_total",
    "Requests of a rollout by arm and outcome: answered, empty, or error, where the champion stood in.",
    ["arm", "outcome"],
)
ARM_SECONDS = Histogram(
    "basketweave_arm_seconds",
    "Time of an arm's answers; CPU time while the challenger answers unseen.",
    ["arm"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
ARM_IMPRESSIONS = Counter("basketweave_arm_impressions_total", "Places of lists that were reported as seen.", ["arm"])
ARM_CLICKS = Counter("basketweave_arm_clicks_total", "Clicks that were reported.", ["arm"])
SHADOW_OVERLAP = Histogram(
    "basketweave_shadow_overlap",
    "Share of the champion's list that the challenger, answering unseen, has too.",
    buckets=[step / 10 for step in range(1, 11)],
)
ROLLOUT_INFO = Gauge(
    "basketweave_rollout_info",
    "1 for the rollout that a worker takes part in, 0 for an earlier one.",
    ["stage", "challenger"],
    multiprocess_mode="mostrecent",
)


def render() -> tuple[bytes, str]:
    """The page of /metrics and its media type; counters are summed over the workers where BentoML runs several."""
    registry = CollectorRegistry()
    try:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # one process, no folder for several
        registry = REGISTRY
    return generate_latest(registry), CONTENT_TYPE_LATEST


class RequestMetrics:
    """Times every request under its route's template."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            endpoint = getattr(scope.get("route"), "path", "other")
            REQUEST_SECONDS.labels(endpoint).observe(time.perf_counter() - started)
            REQUESTS.labels(endpoint, status).inc()
