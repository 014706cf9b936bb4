"""What Prometheus learns of the pipeline: a table of metrics, and `publish`, which sends values of them away.

A step ends long before anyone could scrape it, so values are pushed to a Pushgateway or left in a file for a node
exporter's textfile collector, as `settings.metrics` says. Publishing never fails a run. Labels are bounded: steps,
reasons, verdicts and kinds that the code or the settings name; no user, no item, no path, no run.
"""

from __future__ import annotations

import logging
import math
import re
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.core.store import write_file_whole

if TYPE_CHECKING:
    from components.core.settings import Settings

logger = logging.getLogger(__name__)

JOB = "basketweave-pipeline"
PUSH_SECONDS = 5.0
# Values of one label in one group; the rest is summed up as 'other'.
MOST_VALUES = 20
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Metric:
    """A gauge of the pipeline. Every one carries the label `project` beside its own."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One value of a metric: `Sample("basketweave_step_rows", {"step": "train"}, 24430)`."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: float = 0.0


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        # Of every step, published by `execute`.
        Metric("basketweave_step_seconds", "Time that the step's last run took.", ("step",)),
        Metric("basketweave_step_cpu_seconds", "CPU time of the step's last run, children included.", ("step",)),
        Metric("basketweave_step_gpu_seconds", "GPUs that the step's last run used, times its duration.", ("step",)),
        Metric("basketweave_step_rows", "Rows of the artifact that the step made or reused last.", ("step",)),
        Metric("basketweave_step_reused", "1 where the step's last run found its work done, else 0.", ("step",)),
        Metric("basketweave_step_cost", "Price of the step's last run.", ("step", "currency")),
        Metric("basketweave_step_failed", "1 where the step's last run failed, else 0.", ("step",)),
        Metric("basketweave_step_finished_timestamp_seconds", "When the step last succeeded.", ("step",)),
        Metric("basketweave_step_as_of_timestamp_seconds", "Until when the artifact knows the log.", ("step",)),
        # Of a run: the sum over the steps that ran in it.
        Metric("basketweave_run_seconds", "Time that the steps of the last run took, one after the other."),
        Metric("basketweave_run_cpu_seconds", "CPU time of the last run's steps."),
        Metric("basketweave_run_cost", "Price of the last run.", ("currency",)),
        Metric("basketweave_run_steps", "Steps of the last run by how they ended.", ("state",)),
        # Of the data: ingest and validate.
        Metric("basketweave_source_rows", "Rows of the log by what became of them.", ("step", "outcome")),
        Metric("basketweave_rejected_rows", "Rows that ingest could not read, by reason.", ("reason",)),
        Metric("basketweave_quarantined_rows", "Rows that validate put aside, by reason.", ("reason",)),
        Metric("basketweave_source_last_day_timestamp_seconds", "Beginning of the last day with events."),
        Metric("basketweave_checks", "Checks of the data by how they ended.", ("outcome",)),
        # Of drift: monitor, and the DAG `monitoring`.
        Metric("basketweave_drift_value", "Each measure of drift in its newest window or run.", ("measure",)),
        Metric("basketweave_drift_threshold", "The limit that is nearest to the measure's value.", ("measure",)),
        Metric("basketweave_drift_alarm", "1 where the measure is beyond its limits, else 0.", ("measure",)),
        Metric("basketweave_drift_alarmed_windows", "Windows in a row, up to the newest, that have alarmed."),
        Metric("basketweave_drift_retrain_requests", "Retrains that drift has asked for, the last 200 at most."),
        # Of rollouts: deploy, and the DAG `rollout`.
        Metric("basketweave_rollout_outcome", "1 for how the last rollout ended, or runs, else 0.", ("outcome",)),
        # Of the gate: evaluate.
        Metric("basketweave_evaluation_verdict", "1 for the last evaluation's verdict, else 0.", ("verdict",)),
        Metric("basketweave_evaluation_gate_failed", "1 where the gate stood in the last bundle's way.", ("gate",)),
        Metric(
            "basketweave_evaluation_quality",
            "Mean over users on items new to them, of the bundle, the champion and each baseline.",
            ("entrant", "metric"),
        ),
    )
}


def check_samples(samples: Iterable[Sample]) -> None:
    """Raise ValueError where a sample is not of the table, or its labels are not the metric's."""
    for sample in samples:
        if sample.name not in METRICS:
            raise ValueError(f"{sample.name} is not declared in components/core/pipeline_metrics.py. Add a line there.")
        if set(sample.labels) != set(METRICS[sample.name].labels):
            raise ValueError(f"{sample.name} has the labels {METRICS[sample.name].labels}, not {tuple(sample.labels)}.")


def counted(name: str, label: str, counts: Mapping[str, float], **labels: str) -> list[Sample]:
    """Counts by the values of one label, the largest `MOST_VALUES` of them by name and the others together."""
    largest = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    samples = [Sample(name, {**labels, label: value}, count) for value, count in largest[:MOST_VALUES]]
    if rest := largest[MOST_VALUES:]:
        samples.append(Sample(name, {**labels, label: "other"}, sum(count for _, count in rest)))
    return samples


def finite(samples: Iterable[Sample]) -> Sequence[Sample]:
    """Without the values that are no number: a gap on a dashboard says more than a NaN."""
    return tuple(sample for sample in samples if math.isfinite(sample.value))


def publish(settings: Settings, *, group: str, samples: Sequence[Sample]) -> None:
    """Send samples where `settings.metrics` says; they replace what the same group of the project sent before.

    Without such a setting nothing happens. What goes wrong is a warning in the log, never an error of the run.
    """
    targets: list[Callable[[Settings, str, Sequence[Sample]], None]] = []
    if settings.metrics.pushgateway is not None:
        targets.append(_push)
    if settings.metrics.textfile_folder is not None:
        targets.append(_write)
    for target in targets:
        try:
            check_samples(samples)
            target(settings, group, finite(samples))
        except Exception as error:  # noqa: BLE001  # whatever a gateway or a disk does, the run goes on
            logger.warning("The metrics of '%s' were not published: %s", group, error)


def _registry(settings: Settings, samples: Sequence[Sample]) -> object:
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for sample in samples:
        metric = METRICS[sample.name]
        if metric.name not in gauges:
            gauges[metric.name] = Gauge(metric.name, metric.help, ["project", *metric.labels], registry=registry)
        gauges[metric.name].labels(project=settings.project, **sample.labels).set(sample.value)
    return registry


def _push(settings: Settings, group: str, samples: Sequence[Sample]) -> None:
    from prometheus_client import push_to_gateway

    assert settings.metrics.pushgateway is not None
    push_to_gateway(
        settings.metrics.pushgateway,
        job=JOB,
        registry=_registry(settings, samples),  # type: ignore[arg-type]  # typed in there, where the library is loaded
        grouping_key={"project": settings.project, "group": group},
        timeout=PUSH_SECONDS,
        handler=_send,
    )


def _send(
    url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    """prometheus_client's way to send a request, which does not reach a loopback gateway through a proxy."""

    def send() -> None:
        request = urllib.request.Request(url, data=data, headers=dict(headers), method=method)  # noqa: S310  # a setting
        proxies = urllib.request.ProxyHandler({} if urlsplit(url).hostname in LOOPBACK else None)
        with urllib.request.build_opener(proxies).open(request, timeout=timeout):
            pass

    return send


def _write(settings: Settings, group: str, samples: Sequence[Sample]) -> None:
    from prometheus_client import generate_latest

    assert settings.metrics.textfile_folder is not None
    name = re.sub(r"[^a-z0-9_-]", "-", f"basketweave-{settings.project}-{group}".lower())
    # Whole and by renaming, as the collector asks: it may read at any moment.
    write_file_whole(
        settings.metrics.textfile_folder / f"{name}.prom",
        generate_latest(_registry(settings, samples)),  # type: ignore[arg-type]  # as above
    )
