"""Training runs in MLflow: settings, a point an epoch, results. No artifact and no user goes there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from components.core.libraries import prepare_libraries
from components.core.step import StepContext
from components.train.loop import Epoch
from components.train.ranks import Ranks


class Tracker(Protocol):
    """Where a training run's progress goes."""

    def log_epoch(self, epoch: Epoch) -> None: ...

    def log_result(self, quality: Mapping[str, float], weights: Mapping[str, float]) -> None: ...


class _MlflowTracker:
    def __init__(self, mlflow: Any) -> None:
        self._mlflow = mlflow

    def log_epoch(self, epoch: Epoch) -> None:
        values = {"loss": epoch.loss, "validation_recall_plus_ndcg": epoch.validation}
        self._mlflow.log_metrics(values, step=epoch.number)

    def log_result(self, quality: Mapping[str, float], weights: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({f"validation_{name}": value for name, value in quality.items()})
        self._mlflow.log_metrics({f"weight_{name}": value for name, value in weights.items()})


class _Silent:
    """Of a process that trains along: rank 0 tells what there is to tell."""

    def log_epoch(self, epoch: Epoch) -> None:
        pass

    def log_result(self, quality: Mapping[str, float], weights: Mapping[str, float]) -> None:
        pass


@contextmanager
def track_run(context: StepContext, facts: Mapping[str, Any]) -> Iterator[Tracker]:
    """An MLflow run named after the pipeline's run; marked failed where the block raises."""
    if not Ranks.here().is_first:
        yield _Silent()
        return
    prepare_libraries()
    import mlflow

    settings = context.settings
    if settings.tracking.uri is None:
        settings.home.absolute().mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(settings.tracking_uri)
    mlflow.set_experiment(settings.tracking.experiment)
    with mlflow.start_run(run_name=context.run_id):
        mlflow.log_params({f"train.{name}": value for name, value in settings.train.model_dump().items()})
        mlflow.log_params(dict(facts))
        inputs = {kind: artifact.manifest.content_sha256 for kind, artifact in context.inputs.items()}
        mlflow.set_tags({f"input.{kind}": sha256 for kind, sha256 in inputs.items()})
        mlflow.set_tag("project", settings.project)
        yield _MlflowTracker(mlflow)
