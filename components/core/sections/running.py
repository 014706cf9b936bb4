"""Settings of how the steps are run and kept track of."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.core.sections.base import Section


class TrackingSettings(Section):
    """MLflow."""

    uri: str | None = None
    """None: SQLite in the home folder."""
    experiment: str = "basketweave"


class OrchestrationSettings(Section):
    """How Airflow runs the steps. None of it shapes an artifact."""

    mode: Literal["in_process", "kubernetes"] = "in_process"
    """Where a step runs: in Airflow's own task process, or as a pod of its own."""
    schedule: str | None = "@daily"
    """Cron expression or preset of the DAG `recommender`; None: only when asked."""
    as_of: Literal["log", "schedule"] = "log"
    """What a scheduled run is judged as of: the end of the log's last day, or the moment it was scheduled for, which
    notices a live log that has stopped. A backfill always takes the latter."""
    retries: int = Field(default=2, ge=0)
    """Further tries of a task whose failure may pass. `basketweave run` tries once."""
    retry_delay_seconds: float = Field(default=60, ge=0)
    step_timeout_minutes: float = Field(default=360, gt=0)
    """A step that runs longer is stopped and counts as failed."""
    namespace: str = "basketweave"
    """Kubernetes namespace of the steps' pods."""
    image: str | None = None
    """Image of the steps' pods; needed by mode 'kubernetes'."""
    train_image: str | None = None
    """Image of the pod that trains, such as a CUDA build; None: `image`."""
    train_gpus: int = Field(default=0, ge=0)
    """GPUs that the pod of `train` asks for."""
    config_map: str | None = None
    """ConfigMap whose entries become the pods' environment: settings as BASKETWEAVE_… variables."""
    secret: str | None = None
    """Secret whose entries become the pods' environment."""
    service_account: str | None = None
    """Service account of the pods; None: the namespace's default."""
