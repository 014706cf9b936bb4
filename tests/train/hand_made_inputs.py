"""What the train step reads, made from rows: the features are computed as the features step does, without Feast."""

from __future__ import annotations

from datetime import datetime

from clean_log import Rows, make_clean

from components.core.artifact import ArtifactRef
from components.core.settings import Settings
from components.core.split import TimeSplit
from components.core.step import Step, StepContext, StepReport, execute
from components.features.snapshots import Snapshots
from components.graph.step import STEP as GRAPH


def inputs_of_training(settings: Settings, events: Rows, catalog: Rows, as_of: datetime) -> dict[str, ArtifactRef]:
    """kind -> reference of clean, features and graph."""
    split = TimeSplit.of(as_of, settings.split)

    def features(context: StepContext) -> StepReport:
        artifact = context.inputs["clean"]
        with Snapshots(
            event_files=artifact.partition_paths(),
            catalog_file=artifact.path("catalog.parquet"),
            moments=split.snapshot_times,
            recent_window=split.window,
            settings=settings.features,
        ) as snapshots:
            context.output.write_table("user_history.parquet", snapshots.user_history())
            context.output.write_table("user_statistics.parquet", snapshots.user_statistics())
        return StepReport(summary="features", rows=1)

    step = Step(
        name="features",
        kind="features",
        inputs=("clean",),
        sections=("split",),
        rooms=("components.core.errors",),
        run=features,
    )
    clean = make_clean(settings, events, catalog, as_of)
    return {
        "clean": clean,
        "features": execute(step, settings=settings, inputs={"clean": clean}, run_id="test").ref,
        "graph": execute(GRAPH, settings=settings, inputs={"clean": clean}, run_id="test").ref,
    }
