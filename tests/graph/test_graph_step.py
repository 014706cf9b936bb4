"""The graph step: its artifact, that equal work gives equal bytes, and that nothing after a cutoff is in it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clean_log import make_clean
from safetensors.numpy import load_file
from small_log import CUTOFF, bought, log

from components.core.artifact import Artifact
from components.core.errors import ContractError
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit, cutoff_folder
from components.core.step import execute
from components.core.store import Store
from components.graph.step import STEP

AS_OF = CUTOFF
ITEMS = [f"i{n:02d}" for n in range(24)]
CATALOG = [{"item_id": item, "category": "ab"[n % 2], "brand": "xyz"[n % 3]} for n, item in enumerate(ITEMS)]


def settings_in(home: Path, **graph: Any) -> Settings:
    return load_settings(
        home=home,
        split={"window_days": 7, "training_windows": 1},
        graph={"min_item_users": 2, "price_bands": 3, **graph},
    )


def random_sessions(seed: int, *, days: tuple[float, float] = (0, 60)) -> list[dict[str, Any]]:
    """400 sessions, some of them anonymous, some running over midnight; prices vary."""
    draw = random.Random(seed)
    sessions = []
    for number in range(400):
        user = draw.choice([*(f"u{n:02d}" for n in range(30)), None])
        start = draw.uniform(*days)
        for item in draw.choices(ITEMS, k=draw.randint(1, 5)):
            moment = max(start - draw.uniform(0, 0.6), 1e-6)
            kind = draw.choice(["purchase", "purchase", "view"])
            price = draw.choice([1.0, 2.5, 9.0, None])
            sessions.append(bought(user, f"s{number}", item, days_ago=moment, event_type=kind, price=price))
    return log(*sessions)


def build(settings: Settings, events: Sequence[dict[str, Any]], *, as_of: datetime = AS_OF) -> Artifact:
    clean = make_clean(settings, events, CATALOG, as_of)
    ref = execute(STEP, settings=settings, inputs={"clean": clean}, run_id="test").ref
    return Artifact.open(Store(settings.artifact_root), ref.uri, kind="graph")


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return random_sessions(1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]) -> Artifact:
    return build(settings_in(tmp_path_factory.mktemp("graph")), events)


def test_every_moment_that_training_and_serving_need_has_its_folder(artifact: Artifact) -> None:
    split = TimeSplit.of(AS_OF, settings_in(Path("/nowhere")).split)
    per_cutoff = {"edges.parquet", "filter.safetensors", "nodes.parquet"}
    expected = {f"{cutoff_folder(cutoff)}/{name}" for cutoff in split.graph_cutoffs for name in per_cutoff}
    assert set(artifact.file_names) == expected | {"counts.json", "items.parquet"}
    assert len(split.graph_cutoffs) == 3


def test_items_are_described_row_by_row(artifact: Artifact) -> None:
    items = artifact.table("items.parquet")
    assert items["item_id"].to_pylist() == ITEMS
    assert items["attribute:category"].to_pylist() == [row["category"] for row in CATALOG]
    assert set(items["price_band"].to_pylist()) == {"band 0", "band 1", "band 2"}


def test_counts_and_summary_are_those_of_the_last_graph(artifact: Artifact) -> None:
    last = artifact.table(f"{cutoff_folder(AS_OF - timedelta(days=7))}/edges.parquet")
    counts = json.loads(artifact.path("counts.json").read_text())
    assert counts["edges"] == artifact.manifest.rows == last.num_rows
    assert artifact.manifest.summary.startswith(f"24 items (24 warm, 0 of them isolated), {last.num_rows:,} edges in 4")
    assert counts == artifact.manifest.statistics


def test_filter_rows_are_in_order_and_have_no_diagonal(artifact: Artifact) -> None:
    rows = load_file(artifact.path(f"{cutoff_folder(AS_OF - timedelta(days=7))}/filter.safetensors"))
    row = np.repeat(np.arange(24), np.diff(rows["indptr"]))
    assert len(row) > 100
    assert (row != rows["indices"]).all()
    assert (rows["values"] > 0).all()


def test_equal_work_gives_equal_bytes(artifact: Artifact, events: list[dict[str, Any]], tmp_path: Path) -> None:
    assert build(settings_in(tmp_path), events).manifest.content_sha256 == artifact.manifest.content_sha256


def test_what_comes_after_a_cutoff_changes_no_byte_of_its_graph(
    artifact: Artifact, events: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Other items, users, prices, kinds and times from the first cutoff on, sessions that run over it included."""
    first, second, _ = TimeSplit.of(AS_OF, settings_in(tmp_path).split).graph_cutoffs
    draw = random.Random(9)
    changed = []
    for row in events:
        if row["timestamp"] < first:
            changed.append(row)
            continue
        other = draw.choice(events)
        moved = first + timedelta(days=draw.uniform(0, 20))
        keep = ("user_id", "session_id")
        changed.append({**other, **{key: row[key] for key in keep}, "timestamp": moved, "price": draw.uniform(1, 99)})
    after = build(settings_in(tmp_path), changed)
    sha256 = {entry.path: entry.sha256 for entry in artifact.manifest.files}
    again = {entry.path: entry.sha256 for entry in after.manifest.files}
    same = {path for path in sha256 if sha256[path] == again[path]}
    assert {path for path in sha256 if path.startswith(cutoff_folder(first))} <= same
    assert {path for path in sha256 if path.startswith(cutoff_folder(second))} & same == set()


def test_other_events_before_a_cutoff_change_its_graph(
    artifact: Artifact, events: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The leak test above can see a difference where there is one."""
    first = TimeSplit.of(AS_OF, settings_in(tmp_path).split).graph_cutoffs[0]
    last_before = max((row for row in events if row["timestamp"] < first), key=lambda row: row["timestamp"])
    changed = [row for row in events if row is not last_before]
    sha256 = {entry.path: entry.sha256 for entry in artifact.manifest.files}
    again = {entry.path: entry.sha256 for entry in build(settings_in(tmp_path), changed).manifest.files}
    path = f"{cutoff_folder(first)}/filter.safetensors"
    assert sha256[path] != again[path]


def test_a_log_that_begins_too_late_says_what_to_lower(tmp_path: Path) -> None:
    late = random_sessions(2, days=(0, 13))
    with pytest.raises(ContractError, match=r"^The log has no event before 2024-02-09, .* lower split\.window_days"):
        build(settings_in(tmp_path), late)


def test_an_unfit_graph_leaves_no_artifact(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    settings = settings_in(tmp_path, min_item_users=1000)
    with pytest.raises(ContractError, match="No item has 1000 users"):
        build(settings, events)
    assert Store(settings.artifact_root).list_dir("graph") == []
