"""The log counted anew: what came in from the hold-out, what is old, what is of another moment."""

from __future__ import annotations

import copy
import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from planted_world import NUM_ITEMS, World, item_id, made

from components.core.artifact import Artifact
from components.core.step import StepContext, StepReport
from components.core.store import Store
from components.evaluate.recount import GRAPH_FRESH, HISTORIES, POPULARITY, SKEW, TRAINING_SKEW, recount
from components.features.snapshots import Snapshots
from components.inputs.events import EventLog, read_events
from components.inputs.users import read_histories
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.user_vector import StatisticsScaling

ITEM_IDS = pa.array([item_id(i) for i in range(NUM_ITEMS)])


@dataclasses.dataclass(frozen=True)
class Counting:
    """A whole world's inputs of a recount, to spoil one at a time."""

    world: World
    clean: Artifact
    features: Artifact
    log: EventLog
    histories: Histories

    def failed(self, bundle: Bundle, **changes: Any) -> set[str]:
        given: dict[str, Any] = {"features": self.features, "histories": self.histories, **changes}
        checks = recount(
            bundle,
            self.log,
            event_files=self.clean.partition_paths(),
            split=self.world.split,
            max_skewed_share=0.01,
            seed=1,
            **given,
        )
        return {check.name for check in checks if not check.passed}


@pytest.fixture(scope="module")
def counting(world: World) -> Counting:
    store = Store(world.settings.artifact_root)
    clean, features = Artifact.open(store, world.clean.uri), Artifact.open(store, world.features.uri)
    log = read_events(clean.partition_paths(), item_ids=ITEM_IDS, track=lambda paths: paths)
    histories = read_histories(features, world.split.cutoff, user_ids=log.user_ids, item_ids=ITEM_IDS)
    return Counting(world, clean, features, log, histories)


def with_popularity(bundle: Bundle, popularity: np.ndarray) -> Bundle:
    spoilt = copy.copy(bundle)
    spoilt.items = dataclasses.replace(bundle.items, popularity=popularity)
    return spoilt


def test_an_honest_bundle_agrees_with_the_log(counting: Counting, planted_bundle: Bundle) -> None:
    assert counting.failed(planted_bundle) == set()


def test_one_user_more_than_the_log_had_before_the_cutoff_is_a_leak(counting: Counting, planted_bundle: Bundle) -> None:
    popularity = planted_bundle.items.popularity.copy()
    popularity[7] += 1
    assert counting.failed(with_popularity(planted_bundle, popularity)) == {POPULARITY}


def test_counts_of_a_month_ago_are_an_old_graph(counting: Counting, planted_bundle: Bundle) -> None:
    old = counting.world.users_before(counting.world.split.cutoff - timedelta(days=28)).numpy().astype(np.int64)
    assert counting.failed(with_popularity(planted_bundle, old)) >= {GRAPH_FRESH}
    assert POPULARITY not in counting.failed(with_popularity(planted_bundle, old))


def test_one_item_of_the_holdout_in_one_history_is_a_leak(counting: Counting, planted_bundle: Bundle) -> None:
    whole = counting.histories
    had = set(whole.rows(torch.tensor([0])).items.tolist())
    foreign = next(item for item in range(NUM_ITEMS) if item not in had)
    items = whole.items.clone()
    items[0] = foreign
    leaked = Histories(whole.indptr, items, whole.weights, whole.ages_days)
    assert counting.failed(planted_bundle, histories=leaked) == {HISTORIES}


@pytest.mark.parametrize("days", [-1, 1])
def test_features_of_a_day_before_or_after_are_skewed_for_serving_and_for_training(
    counting: Counting, planted_bundle: Bundle, days: int
) -> None:
    world, shift = counting.world, timedelta(days=days)

    def run(context: StepContext) -> StepReport:
        with Snapshots(
            event_files=counting.clean.partition_paths(),
            catalog_file=counting.clean.path("catalog.parquet"),
            moments=[moment + shift for moment in world.split.snapshot_times],
            recent_window=world.split.window,
            settings=world.settings.features,
        ) as snapshots:
            tables = {"user_history": snapshots.user_history(), "user_statistics": snapshots.user_statistics()}
        for name, table in tables.items():
            field = table.schema.field("event_timestamp")
            at = pc.subtract(table["event_timestamp"], pa.scalar(shift, pa.duration("us"))).cast(field.type)
            place = table.column_names.index("event_timestamp")
            context.output.write_table(f"{name}.parquet", table.set_column(place, field, at))
        return StepReport(summary="shifted", rows=1)

    ref = made("features", "features", world.settings, run, inputs={"clean": world.clean}, fingerprint=str(days)).ref
    shifted = Artifact.open(Store(world.settings.artifact_root), ref.uri)
    assert {SKEW, TRAINING_SKEW} <= counting.failed(planted_bundle, features=shifted)


def test_a_bundle_trained_on_other_features_than_those_that_are_served_is_skewed(
    counting: Counting, planted_bundle: Bundle
) -> None:
    spoilt = copy.copy(planted_bundle)
    scaling = planted_bundle.scorer.scaling
    spoilt.scorer = copy.copy(planted_bundle.scorer)
    spoilt.scorer.scaling = StatisticsScaling(
        scaling.names, (scaling.means[0] + 0.02, scaling.means[1]), scaling.deviations
    )
    assert counting.failed(spoilt) == {TRAINING_SKEW}


def test_a_bundle_that_does_not_say_how_it_cut_time_fails(counting: Counting, planted_bundle: Bundle) -> None:
    silent = copy.copy(planted_bundle)
    silent.facts = {}
    assert counting.failed(silent) == {TRAINING_SKEW}


def test_a_leak_ends_in_a_reject_before_anything_is_measured(counting: Counting) -> None:
    """Inside of the step, by a bundle whose papers are in order."""

    def leak(scorer: Any) -> None:
        scorer.counted.popularity.ever_I[3] += 1

    execution = counting.world.evaluate(counting.world.bundle(change=leak, named="leak"))
    statistics = execution.manifest.statistics
    assert (statistics["verdict"], statistics["failed_gates"][0]) == ("reject", POPULARITY)
    assert "recall" not in statistics
    assert "events of the hold-out" in (Path(execution.ref.uri) / "report.html").read_text()
