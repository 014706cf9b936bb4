"""Settings of how the steps are run and kept track of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.core.sections.base import Section

# Of components.core.command.KINDS, which imports the settings; a test holds the two together.
StepOrDefault = Literal["default", "ingest", "validate", "features", "graph", "train", "evaluate", "deploy", "monitor"]


class TrackingSettings(Section):
    """MLflow."""

    uri: str | None = None
    """None: SQLite in the home folder."""
    experiment: str = "basketweave"


# What Kubernetes takes: amounts such as 500m or 8Gi, and names of labels such as nvidia.com/gpu.present.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$")]
LabelKey = Annotated[
    str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]


class PodResources(Section):
    """What a step's pod asks for and may use."""

    cpu: Quantity | None = None
    """CPUs that the pod asks for. It may use more where its node has them."""
    memory: Quantity | None = None
    """Memory that the pod asks for."""
    memory_limit: Quantity | None = None
    """Memory beyond which the pod is killed; None: what it asks for."""


class Toleration(Section):
    """A taint of a node that a pod puts up with, as Kubernetes writes it."""

    key: LabelKey
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue | None = None
    """With operator 'Equal' alone."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """None: every effect of the taint."""

    @model_validator(mode="after")
    def _value_goes_with_equal(self) -> Toleration:
        if (self.value is not None) != (self.operator == "Equal"):
            raise ValueError("a toleration has a value with operator 'Equal', and with no other")
        return self


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
    train_node_selector: Mapping[LabelKey, LabelValue] = {}
    """Labels of the nodes on which the pod of `train` may run, such as those with a GPU."""
    train_tolerations: tuple[Toleration, ...] = ()
    """Taints of those nodes, such as `nvidia.com/gpu`."""
    resources: Mapping[StepOrDefault, PodResources] = {}
    """CPU and memory of the steps' pods, by step; 'default' is for those that are not named."""
    config_map: str | None = None
    """ConfigMap whose entries become the pods' environment: settings as BASKETWEAVE_… variables."""
    secret: str | None = None
    """Secret whose entries become the pods' environment."""
    service_account: str | None = None
    """Service account of the pods; None: the namespace's default."""
