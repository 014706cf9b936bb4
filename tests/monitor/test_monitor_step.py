"""The step on a small shop's real bundle: quiet days, a planted drift, and what it leaves for people and gauges."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.core.artifact import Artifact, ArtifactRef
from components.core.command import load_step
from components.core.live import move_pointer, restore_pointer
from components.core.settings import Settings, load_settings
from components.core.step import Execution, execute
from components.core.store import Store
from components.simulate.settings import Drift, WorldSettings
from components.simulate.writer import simulate

pytestmark = pytest.mark.slow

# The log's days are those of January to March 2024; drift begins on 20 March, day 79.
TRAINED_ON = "2024-0[12]-*"
QUIET_UNTIL = "2024-0[12]-*|2024-03-0*|2024-03-1*"
DRIFT_DAY = 79


@dataclass
class WatchedShop:
    folder: Path
    bundle: ArtifactRef

    def settings(self, days: str = TRAINED_ON, **monitor: Any) -> Settings:
        """The log up to some days, by hard links in a folder of its own."""
        seen = self.folder / re.sub(r"\W", "", days)
        seen.mkdir(exist_ok=True)
        for pattern in days.split("|"):
            for file in (self.folder / "log" / "events").glob(f"day={pattern}.parquet"):
                if not (seen / file.name).exists():
                    (seen / file.name).hardlink_to(file)
        return load_settings(
            home=self.folder / "home",
            source={
                "profile": "contract",
                "events": f"{seen}/*.parquet",
                "catalog": f"{self.folder}/log/catalog.parquet",
            },
            split={"window_days": 14, "training_windows": 1},
            train={"max_epochs": 1, "embedding_dim": 16},
            monitor=monitor,
        )

    def run(self, name: str, settings: Settings, refs: dict[str, ArtifactRef]) -> Execution:
        step = load_step(name)
        inputs = {kind: refs[kind] for kind in step.inputs if kind in refs}
        return execute(step, settings=settings, inputs=inputs, run_id=f"shop-{name}")

    def monitor(self, days: str, **monitor: Any) -> Execution:
        settings = self.settings(days, **monitor)
        refs: dict[str, ArtifactRef] = {}
        for name in ("ingest", "validate"):
            done = self.run(name, settings, refs)
            refs[done.ref.kind] = done.ref
        return self.run("monitor", settings, refs)

    def file(self, execution: Execution, name: str) -> Path:
        store = Store(self.settings().artifact_root)
        return Artifact.open(store, execution.ref.uri, kind="monitoring").path(name)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> WatchedShop:
    folder = tmp_path_factory.mktemp("watched")
    drift = Drift(kind="volume", day=DRIFT_DAY, size=1.5)
    world = WorldSettings(users=300, items=200, days=91, sessions_per_user_day=0.3, seed=7, drifts=(drift,))
    simulate(world, folder / "log")
    watched = WatchedShop(folder=folder, bundle=None)  # type: ignore[arg-type]  # made by the next lines
    refs: dict[str, ArtifactRef] = {}
    for name in ("ingest", "validate", "features", "graph", "train"):
        done = watched.run(name, watched.settings(), refs)
        refs[done.ref.kind] = done.ref
    watched.bundle = refs["bundle"]
    return watched


@pytest.fixture(scope="module")
def quiet(shop: WatchedShop) -> Execution:
    # Nobody ran the features since the training, 19 days ago, which by the declared bound is an alarm of its own.
    return shop.monitor(QUIET_UNTIL, bounds={"feature_age_days": 30})


@pytest.fixture(scope="module")
def drifted(shop: WatchedShop, quiet: Execution) -> Execution:
    return shop.monitor("2024-*", evidently="always")


def test_quiet_days_are_quiet(quiet: Execution) -> None:
    statistics = quiet.manifest.statistics
    assert (statistics["verdict"], statistics["alarms"], statistics["window"]) == ("quiet", [], "2024-03-19")
    assert statistics["alarmed_windows"] == 0
    # From the cutoff, 16 February, on.
    assert statistics["windows"] == 33


def test_planted_drift_alarms_from_its_first_day_and_says_what(drifted: Execution, shop: WatchedShop) -> None:
    statistics = drifted.manifest.statistics
    assert statistics["verdict"] == "drift"
    assert {"sessions", "feature_age_days"} <= set(statistics["alarms"])
    assert statistics["why"].startswith("drift: ")
    assert "sessions" in statistics["why"]
    windows = {one["day"]: one["judged"] for one in json.loads(shop.file(drifted, "drift.json").read_text())["windows"]}
    assert windows["2024-03-19"]["sessions"]["cause"] is None
    assert windows["2024-03-20"]["sessions"]["cause"] == "window"
    assert statistics["bundle"] == shop.bundle.sha256


def test_gauges_show_value_threshold_and_alarm_by_measure_and_no_user(drifted: Execution) -> None:
    samples = {(one.name, one.labels.get("measure")): one.value for one in drifted.manifest.samples}
    assert samples["basketweave_drift_alarm", "sessions"] == 1
    assert samples["basketweave_drift_alarm", "price_level"] == 0
    assert samples["basketweave_drift_value", "sessions"] > samples["basketweave_drift_threshold", "sessions"]
    assert {name for name, _ in samples} == {
        "basketweave_drift_alarm",
        "basketweave_drift_alarmed_windows",
        "basketweave_drift_threshold",
        "basketweave_drift_value",
    }


def test_a_run_that_finds_nothing_new_is_reused(quiet: Execution, drifted: Execution, shop: WatchedShop) -> None:
    again = shop.monitor("2024-*", evidently="always")
    assert again.is_reused
    assert again.ref == drifted.ref


def test_days_counted_before_are_not_read_again(
    shop: WatchedShop, drifted: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.monitor import reading

    counted = []
    real = reading.tally_day
    monkeypatch.setattr(reading, "tally_day", lambda *args: counted.append(1) or real(*args))
    other = shop.monitor("2024-*", false_alarm_rate=0.0005, evidently="never")
    assert not other.is_reused
    assert counted == []
    days = [json.loads(shop.file(one, "drift.json").read_text())["windows"] for one in (drifted, other)]
    values = [[window["judged"]["price_psi"]["value"] for window in one] for one in days]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_the_pages_load_nothing_and_name_nobody(shop: WatchedShop, drifted: Execution) -> None:
    (clean,) = [one for one in drifted.manifest.inputs if one.kind == "clean"]
    partitions = Artifact.open(Store(shop.settings().artifact_root), clean.uri, kind="clean").partition_paths()
    users = set(pq.read_table(partitions[0], columns=["user_id"])["user_id"].drop_null().to_pylist())
    for name in ("drift.html", "evidently.html", "drift.json"):
        text = shop.file(drifted, name).read_text()
        assert not [user for user in users if user in text], name
        assert re.findall(r"""<(?:script|img|link|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//""", text) == [], name
    assert "sessions" in shop.file(drifted, "drift.html").read_text()


def test_the_bundle_that_serves_is_watched_not_the_one_made_last(shop: WatchedShop, drifted: Execution) -> None:
    store = Store(shop.settings().artifact_root)
    other = shop.settings().model_copy(
        update={"train": shop.settings().train.model_copy(update={"seed": 8, "max_epochs": 1})}
    )
    refs = {kind: ArtifactRef.model_validate(store.read_json(f"{kind}/latest.json")) for kind in ("features", "graph")}
    made_of = {one.kind: one for one in Artifact.open(store, shop.bundle.uri).manifest.inputs}
    newer = shop.run("train", other, {**refs, **made_of}).ref
    assert newer.sha256 != shop.bundle.sha256
    move_pointer(store, shop.bundle, previous=newer, run_id="test")
    try:
        done = shop.monitor(QUIET_UNTIL, evidently="never")
    finally:
        restore_pointer(store, None)
    assert done.manifest.statistics["bundle"] == shop.bundle.sha256
    # Another seed gives other vectors, and the bundle before is there to be compared with.
    judged = json.loads(shop.file(done, "drift.json").read_text())["run"]
    assert 0 < judged["neighbour_overlap"]["value"] < 1
    assert judged["serving_skew"]["value"] == 0
