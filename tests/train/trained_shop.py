"""A made-up shop of a few hundred people, taken from its log to a bundle by the real steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.artifact import Artifact, ArtifactRef
from components.core.command import load_step
from components.core.settings import Settings, load_settings
from components.core.step import execute
from components.core.store import Store
from components.simulate.settings import WorldSettings
from components.simulate.writer import simulate

STEPS = ("ingest", "validate", "features", "graph", "train")


@dataclass(frozen=True)
class TrainedShop:
    settings: Settings
    refs: dict[str, ArtifactRef]

    def artifact(self, kind: str) -> Artifact:
        return Artifact.open(Store(self.settings.artifact_root), self.refs[kind].uri, kind=kind)


def train_shop(
    folder: Path,
    *,
    world: dict[str, Any] | None = None,
    graph: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
) -> TrainedShop:
    """`world` changes the shop, `graph` and `train` these sections."""
    shop: dict[str, Any] = {"users": 300, "items": 200, "days": 60, "sessions_per_user_day": 0.3, "seed": 7}
    simulate(WorldSettings(**(shop | (world or {}))), folder / "log")
    settings = load_settings(
        home=folder / "home",
        source={
            "profile": "contract",
            "events": f"{folder}/log/events/*.parquet",
            "catalog": f"{folder}/log/catalog.parquet",
        },
        split={"window_days": 14, "training_windows": 1},
        graph=graph or {},
        train={"max_epochs": 3, "embedding_dim": 16} | (train or {}),
    )
    refs: dict[str, ArtifactRef] = {}
    for name in STEPS:
        step = load_step(name)
        inputs = {kind: refs[kind] for kind in step.inputs}
        refs[step.kind] = execute(step, settings=settings, inputs=inputs, run_id=f"shop-{name}").ref
    return TrainedShop(settings=settings, refs=refs)
