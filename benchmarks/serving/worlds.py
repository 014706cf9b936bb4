"""The bundles that are served: simulated shops, through the pipeline's own steps, vectors trained on their logs.

Kept in a folder outside of the repository, and found there again: a bundle of a million items takes a while.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import cpu_seconds
from components.core.artifact import Artifact, ArtifactRef
from components.core.command import load_step
from components.core.settings import Settings, load_settings
from components.core.step import execute
from components.core.store import Store
from components.simulate.settings import WorldSettings
from components.simulate.writer import simulate

STEPS = ("ingest", "validate", "features", "graph", "train")
# Two epochs of 64 numbers an item, on one target window: enough for vectors that a shop's taste is in.
TRAINING = {"embedding_dim": 64, "max_epochs": 2, "patience": 2}
SPLIT = {"window_days": 28, "training_windows": 1}


@dataclass(frozen=True, kw_only=True)
class World:
    """A shop's size, and how its bundle is trained."""

    name: str
    users: int
    items: int
    sessions_per_user_day: float
    min_item_users: int
    """Items with fewer users have no id vector: content and neighbours speak for them."""
    seed: int = 20_261_124

    @property
    def log(self) -> WorldSettings:
        return WorldSettings(
            users=self.users, items=self.items, days=120, sessions_per_user_day=self.sessions_per_user_day
        )


SMALL = World(name="items2k", users=400, items=2_000, sessions_per_user_day=0.5, min_item_users=3)
HUNDRED_THOUSAND = World(name="items100k", users=4_000, items=100_000, sessions_per_user_day=0.6, min_item_users=5)
MILLION = World(name="items1m", users=4_000, items=1_000_000, sessions_per_user_day=0.8, min_item_users=2)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A world's project: its settings, its bundles by seed, and where they came from."""

    settings: Settings
    bundle: ArtifactRef
    facts: dict[str, Any]

    @property
    def folder(self) -> Path:
        store = Store(self.settings.artifact_root)
        return Artifact.open(store, self.bundle.uri, sha256=self.bundle.sha256, kind="bundle").local_folder(
            self.settings.project_home / "bundles"
        )


def settings_of(world: World, cache: Path) -> Settings:
    return load_settings(
        home=cache,
        project=world.name,
        source={
            "profile": "contract",
            "events": str(cache / "logs" / world.name / "events" / "*.parquet"),
            "catalog": str(cache / "logs" / world.name / "catalog.parquet"),
        },
        split=SPLIT,
        graph={"min_item_users": world.min_item_users},
        train={**TRAINING, "seed": world.seed},
    )


def build(world: World, cache: Path, *, again: bool = False) -> Built:
    """The world's bundle: what an earlier call left, or made now (again: even if one is there)."""
    record = cache / f"{world.name}-{world.seed}.json"
    settings = settings_of(world, cache)
    if record.is_file() and not again:
        kept = json.loads(record.read_text())
        return Built(settings=settings, bundle=ArtifactRef.model_validate(kept["bundle"]), facts=kept["facts"])
    log = cache / "logs" / world.name
    facts: dict[str, Any] = {"world": world.name, "users": world.users, "items": world.items}
    if not (log / "key.json").is_file():
        key = simulate(world.log, log)
        facts["events"] = key.rows
    refs: dict[str, ArtifactRef] = {}
    as_of: datetime = world.log.as_of
    for name in STEPS:
        step = load_step(name)
        started, cpu = time.perf_counter(), cpu_seconds()
        done = execute(
            step,
            settings=settings,
            inputs={kind: refs[kind] for kind in step.inputs},
            run_id="bench-serving",
            as_of=as_of,
        )
        refs[step.kind] = done.ref
        facts[name] = {
            "wall_seconds": round(time.perf_counter() - started, 1),
            "cpu_seconds": round(cpu_seconds() - cpu, 1),
            "summary": done.manifest.summary,
        }
        print(f"{world.name} {name}: {done.manifest.summary}", file=sys.stderr, flush=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"bundle": refs["bundle"].model_dump(mode="json"), "facts": facts}, indent=1))
    return Built(settings=settings, bundle=refs["bundle"], facts=facts)
