"""Which series our code can export, and which a PromQL text names."""

from __future__ import annotations

import re

import prometheus_client

from components.core.pipeline_metrics import METRICS

# What Prometheus itself knows of a scrape.
OF_PROMETHEUS = frozenset({"up"})


def exported() -> dict[str, str]:
    """Every series' name -> the metric that it belongs to, of the service and of the pipeline."""
    import serving.metrics  # noqa: F401  # registers its metrics

    series = {name: name for name in METRICS}
    for family in prometheus_client.REGISTRY.collect():
        if not family.name.startswith("basketweave_"):
            continue
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        series |= {family.name + suffix: family.name for suffix in suffixes}
    return series


def named(expr: str) -> set[str]:
    """Series that a query reads; names in label values and in `by (…)` are none of ours."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expr)
    return set(re.findall(r"\bbasketweave_\w+|\bup\b", bare))
