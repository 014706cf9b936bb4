"""What a step used: time, CPU and GPU, and what that costs; kept a run in the store, so that a run has a sum too."""

from __future__ import annotations

import contextlib
import logging
import re
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifact import Manifest
from components.core.clock import wall_clock
from components.core.pipeline_metrics import Sample, publish
from components.core.sections import MetricsSettings
from components.core.settings import Settings
from components.core.store import Store

logger = logging.getLogger(__name__)

ROOT = "usage"
# Runs whose usage is kept; older ones go when a new run begins.
KEPT_RUNS = 50
HOUR_SECONDS = 3600
StepState = Literal["done", "reused", "failed"]


class StepUsage(BaseModel):
    """What one step of a run used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = ""
    step: str
    state: StepState
    started_at: datetime
    seconds: float
    cpu_seconds: float
    """User and system time of the process and of the children that it waited for."""
    gpu_seconds: float = 0.0

    def cost(self, prices: MetricsSettings) -> float | None:
        """Price in `prices.currency`; None where no price is set."""
        if prices.cpu_hour_price is None and prices.gpu_hour_price is None:
            return None
        per_cpu, per_gpu = prices.cpu_hour_price or 0.0, prices.gpu_hour_price or 0.0
        return (self.cpu_seconds * per_cpu + self.gpu_seconds * per_gpu) / HOUR_SECONDS


class Stopwatch:
    """Measures what a step uses from when it is made."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._started_at = wall_clock()
        self._started = time.monotonic()
        self._cpu_started = _cpu_seconds()

    def usage(self, state: StepState, *, num_gpus: int = 0) -> StepUsage:
        """What was used until now, by a step that ended as `state` says."""
        seconds = time.monotonic() - self._started
        return StepUsage(
            step=self._step,
            state=state,
            started_at=self._started_at,
            seconds=seconds,
            cpu_seconds=_cpu_seconds() - self._cpu_started,
            gpu_seconds=seconds * num_gpus,
        )


def publish_step(
    settings: Settings, store: Store, *, run_id: str, usage: StepUsage, manifest: Manifest | None = None
) -> None:
    """Tell Prometheus how a step went, what it said of its artifact, and how far its run is. Never fails the run.

    A step that failed has no manifest: what it said when it last succeeded stands beside the failure.
    """
    try:
        steps = record_usage(store, run_id, usage)
    except OSError as error:  # a full disk, most likely, of which the step's own error speaks
        logger.warning("The usage of '%s' was not kept: %s", usage.step, error)
        steps = [usage]
    prices = settings.metrics
    if not prices.is_on:
        return
    labels = {"step": usage.step}
    outcome = [Sample("basketweave_step_failed", labels, float(manifest is None))]
    publish(settings, group=f"outcome-{usage.step}", samples=[*outcome, *usage_samples(usage, prices)])
    if manifest is not None:
        samples = [
            Sample("basketweave_step_rows", labels, manifest.rows),
            Sample("basketweave_step_finished_timestamp_seconds", labels, wall_clock().timestamp()),
            Sample("basketweave_step_as_of_timestamp_seconds", labels, manifest.as_of.timestamp()),
        ]
        publish(settings, group=f"step-{usage.step}", samples=[*samples, *manifest.samples])
    publish(settings, group="run", samples=run_samples(steps, prices))


def record_usage(store: Store, run_id: str, usage: StepUsage) -> Sequence[StepUsage]:
    """Keep what a step of a run used; returns the run's steps so far. A later try of the step replaces an earlier."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", run_id)  # some stores refuse the '+' and ':' of Airflow's run ids
    folders = store.list_dir(ROOT)
    folder = next((one for one in folders if one.partition("-")[2] == name), None)
    if folder is None:
        folder = f"{usage.started_at:%Y%m%dT%H%M%S}-{name}"
        for old in folders[: max(len(folders) + 1 - KEPT_RUNS, 0)]:
            store.delete(f"{ROOT}/{old}")
    kept = usage.model_copy(update={"run_id": run_id})
    store.write_json(f"{ROOT}/{folder}/{usage.step}.json", kept.model_dump(mode="json"))
    return list(_read(store, folder))


def usage_samples(usage: StepUsage, prices: MetricsSettings) -> list[Sample]:
    """A step's own figures."""
    labels = {"step": usage.step}
    samples = [
        Sample("basketweave_step_seconds", labels, usage.seconds),
        Sample("basketweave_step_cpu_seconds", labels, usage.cpu_seconds),
        Sample("basketweave_step_gpu_seconds", labels, usage.gpu_seconds),
        Sample("basketweave_step_reused", labels, float(usage.state == "reused")),
    ]
    if (cost := usage.cost(prices)) is not None:
        samples.append(Sample("basketweave_step_cost", labels | {"currency": prices.currency}, cost))
    return samples


def run_samples(steps: Sequence[StepUsage], prices: MetricsSettings) -> list[Sample]:
    """A run's sums."""
    states = Counter[str]({"done": 0, "reused": 0, "failed": 0})
    states.update(step.state for step in steps)
    samples = [
        Sample("basketweave_run_seconds", {}, sum(step.seconds for step in steps)),
        Sample("basketweave_run_cpu_seconds", {}, sum(step.cpu_seconds for step in steps)),
        *(Sample("basketweave_run_steps", {"state": state}, count) for state, count in sorted(states.items())),
    ]
    costs = [step.cost(prices) for step in steps]
    if costs and None not in costs:
        total = sum(cost for cost in costs if cost is not None)
        samples.append(Sample("basketweave_run_cost", {"currency": prices.currency}, total))
    return samples


def usage_of_runs(store: Store) -> Mapping[str, Sequence[StepUsage]]:
    """What the steps of the kept runs used, by run id."""
    found: dict[str, list[StepUsage]] = {}
    for folder in store.list_dir(ROOT):
        for usage in _read(store, folder):
            found.setdefault(usage.run_id, []).append(usage)
    return found


def _read(store: Store, folder: str) -> Iterator[StepUsage]:
    for name in store.list_dir(f"{ROOT}/{folder}"):
        if name.startswith("."):
            continue  # the part of a file whose writer was killed
        with contextlib.suppress(ValueError, ValidationError):
            yield StepUsage.model_validate(store.read_json(f"{ROOT}/{folder}/{name}"))


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
