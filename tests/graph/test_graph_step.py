"""The graph step: its artifact, that equal work gives equal bytes, and that nothing after a cutoff is in it."""

from __future__ import annotations

import json
import random
import re
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
from components.graph.relations import RELATIONS
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


def build(
    settings: Settings,
    events: Sequence[dict[str, Any]],
    *,
    as_of: datetime = AS_OF,
    catalog: Sequence[dict[str, Any]] = CATALOG,
) -> Artifact:
    clean = make_clean(settings, events, catalog, as_of)
    ref = execute(STEP, settings=settings, inputs={"clean": clean}, run_id="test").ref
    return Artifact.open(Store(settings.artifact_root), ref.uri, kind="graph")


def edges_by_name(artifact: Artifact, cutoff: datetime, item_ids: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """(relation, who hears, who speaks) -> weight, in names."""
    folder = cutoff_folder(cutoff)
    names: dict[str, Sequence[str]] = {"item": item_ids}
    for row in artifact.table(f"{folder}/other_nodes.parquet").to_pylist():
        names.setdefault(row["kind"], []).append(row["name"])  # type: ignore[attr-defined]  # lists, all but the items
    return {
        (row["relation"], names[row["target_kind"]][row["target"]], names[row["source_kind"]][row["source"]]): row[
            "weight"
        ]
        for row in artifact.table(f"{folder}/edges.parquet").to_pylist()
    }


def expanded_days(artifact: Artifact) -> int:
    found = re.search(r"pairs of (\d+) of", artifact.manifest.summary)
    assert found is not None
    return int(found.group(1))


@pytest.fixture(scope="module")
def events() -> list[dict[str, Any]]:
    return random_sessions(1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]) -> Artifact:
    return build(settings_in(tmp_path_factory.mktemp("graph")), events)


def test_every_moment_that_training_and_serving_need_has_its_folder(artifact: Artifact) -> None:
    split = TimeSplit.of(AS_OF, settings_in(Path("/nowhere")).split)
    per_cutoff = {"edges.parquet", "filter.safetensors", "nodes.parquet", "other_nodes.parquet"}
    expected = {f"{cutoff_folder(cutoff)}/{name}" for cutoff in split.graph_cutoffs for name in per_cutoff}
    assert set(artifact.file_names) == expected | {"counts.json", "items.parquet", "rules.parquet"}
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
    assert artifact.manifest.summary.startswith(f"24 items (24 warm, 0 of them isolated), {last.num_rows:,} edges in 6")
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
    of_second = {path for path in sha256 if path.startswith(cutoff_folder(second))}
    assert of_second & same == {f"{cutoff_folder(second)}/other_nodes.parquet"}  # there are none


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


def test_a_days_update_expands_that_day_and_equals_the_full_rebuild(
    events: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Byte for byte, over all relations, as of the new day."""
    everything = {"relations": (*RELATIONS, "attribute", "user_item")}
    next_day = AS_OF + timedelta(days=1)
    grown = [*events, *(row | {"timestamp": row["timestamp"] + timedelta(days=1)} for row in random_sessions(5)[:60])]
    grown = [row for row in grown if row["timestamp"] < next_day]
    grown = [row | {"event_id": str(number)} for number, row in enumerate(grown)]
    daily = settings_in(tmp_path / "daily", **everything)
    build(daily, [row for row in grown if row["timestamp"] < AS_OF - timedelta(days=7)], as_of=AS_OF)
    updated = build(daily, grown, as_of=next_day)
    anew = build(settings_in(tmp_path / "anew", **everything), grown, as_of=next_day)
    assert updated.manifest.content_sha256 == anew.manifest.content_sha256
    assert expanded_days(anew) > 50
    assert expanded_days(updated) == 1


def test_an_item_more_moves_rows_and_changes_nothing_else(events: list[dict[str, Any]], tmp_path: Path) -> None:
    """Edges by item id are what they were; so are items' rows."""
    names = (*(set(RELATIONS) - {"similar_text"}), "attribute", "user_item")
    settings = settings_in(tmp_path / "before", relations=names)
    before = build(settings, events)
    after = build(
        settings_in(tmp_path / "after", relations=names),
        events,
        catalog=[{"item_id": "a first item", "category": "new"}, *CATALOG],
    )
    ids = [artifact.table("items.parquet")["item_id"].to_pylist() for artifact in (before, after)]
    assert ids[1] == ["a first item", *ids[0]]
    for cutoff in TimeSplit.of(AS_OF, settings.split).graph_cutoffs:
        first, second = (edges_by_name(artifact, cutoff, of) for artifact, of in zip((before, after), ids, strict=True))
        assert len(first) > 200
        assert first == second


def test_a_knowledge_graph_and_rules_are_read_and_what_they_say_decides_the_key(
    events: list[dict[str, Any]], tmp_path: Path
) -> None:
    rules, knowledge = tmp_path / "rules.csv", tmp_path / "knowledge.csv"
    rules.write_text("item_id,other_item_id,rule\ni00,i01,never_together\ni02,i03,always_with\ni02,gone,always_with\n")
    knowledge.write_text("head,relation,tail\ni04,made by,Acme\ni05,made by,Acme\n")
    names = ("co_purchase", "co_view", "same_category", "always_with", "knowledge")
    settings = settings_in(tmp_path, rules=str(rules), knowledge=str(knowledge), relations=names)
    artifact = build(settings, events)
    assert artifact.table("rules.parquet").num_rows == 3
    for cutoff in TimeSplit.of(AS_OF, settings.split).graph_cutoffs:
        edges = edges_by_name(artifact, cutoff, ITEMS)
        assert {("always_with", "i02", "i03"), ("always_with", "i03", "i02")} <= set(edges)
        assert {("knowledge", "i04", "made by → Acme"), ("knowledge", "made by → Acme", "i05")} <= set(edges)
        assert not [edge for edge in edges if {"i00", "i01"} == set(edge[1:])]
        rows = load_file(artifact.path(f"{cutoff_folder(cutoff)}/filter.safetensors"))
        row = np.repeat(np.arange(24), np.diff(rows["indptr"]))
        assert not ((row < 2) & (rows["indices"] < 2)).any()
    rules.write_text("item_id,other_item_id,rule\ni00,i02,never_together\n")
    assert build(settings, events).manifest.content_sha256 != artifact.manifest.content_sha256


def test_a_log_that_begins_too_late_says_what_to_lower(tmp_path: Path) -> None:
    late = random_sessions(2, days=(0, 13))
    with pytest.raises(ContractError, match=r"^The log has no event before 2024-02-09, .* lower split\.window_days"):
        build(settings_in(tmp_path), late)


def test_an_unfit_graph_leaves_no_artifact(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    settings = settings_in(tmp_path, min_item_users=1000)
    with pytest.raises(ContractError, match="No item has 1000 users"):
        build(settings, events)
    assert Store(settings.artifact_root).list_dir("graph") == []
