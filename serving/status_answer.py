"""What the status page is told: `GET /status.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Bundle(_Part):
    """What the deploy pointer names."""

    sha256: str
    items: int | None
    cutoff: datetime | None
    as_of: datetime | None
    since: datetime
    run_id: str
    previous: str | None


class Task(_Part):
    task: str
    state: str
    summary: str
    seconds: float


class Run(_Part):
    """A run of the pipeline, tasks in the order in which they ended."""

    run_id: str
    ended_at: datetime
    outcome: str
    """'deployed', 'not promoted', 'failed'; 'unfinished' while it is under way, or killed; 'done' for a run of another
    kind."""
    sentence: str
    seconds: float
    cpu_seconds: float | None
    cost: float | None
    why: str | None
    """What asked for it, where somebody said it."""
    tasks: Sequence[Task]


class Rows(_Part):
    kept: int
    quarantined: int
    reasons: Mapping[str, int]
    """The largest few."""


class Evaluation(_Part):
    verdict: str
    failed_gates: Sequence[str]
    summary: str
    recall: float | None
    best_baseline: str | None
    best_baseline_recall: float | None


class Measure(_Part):
    """A measure of drift at the last look."""

    name: str
    value: float
    limit: float | None
    is_alarm: bool


class Drift(_Part):
    summary: str
    as_of: datetime
    measures: Sequence[Measure]


class Status(_Part):
    """`GET /status.json`."""

    project: str
    now: datetime
    is_ready: bool
    reason: str | None
    workers: Mapping[str, int]
    loaded_at: datetime | None
    bundle: Bundle | None
    stage: str
    challenger: str | None
    share: float | None
    barred: Mapping[str, str]
    runs: Sequence[Run]
    currency: str
    rows: Rows | None
    evaluation: Evaluation | None
    drift: Drift | None
    attention: Sequence[str]
    """What a person should look at, the most urgent first."""
