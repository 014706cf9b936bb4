"""Session pairs kept a day: what is read again is what a full rebuild finds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_log import CUTOFF, bought, log, read

from components.core.shortcut import read_shortcut
from components.core.store import Store
from components.graph import day_pairs
from components.graph.session_pairs import PAIR_KINDS
from components.graph.world import Worlds

NAMES = [f"i{n}" for n in range(12)]


def sessions(seed: int, *, days: int = 8) -> list[dict[str, Any]]:
    """Some run over midnight; looks and purchases."""
    draw = random.Random(seed)
    found = []
    for number in range(120):
        start = draw.uniform(0.6, days)
        for item in draw.choices(NAMES, k=draw.randint(1, 6)):
            kind = draw.choice(["purchase", "view"])
            moment = start - draw.uniform(0, 0.4)
            found.append(bought(f"u{number % 9}", f"s{number}", item, days_ago=moment, event_type=kind))
    return log(*found)


def counted(worlds: Worlds) -> dict[str, list[tuple[str, str, float]]]:
    """Pairs by kind, in names."""
    shop = worlds.by_cutoff[-1]
    found = {}
    for kind in PAIR_KINDS:
        source, target, weight = shop.pairs[kind].counts(cutoff=shop.cutoff_days, half_life_days=5)
        found[kind] = [(shop.item_ids[i], shop.item_ids[j], w) for i, j, w in zip(source, target, weight, strict=True)]
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def build(folder: Path, events: Sequence[dict[str, Any]], store: Store | None) -> Worlds:
    folder.mkdir(exist_ok=True)
    return read(folder, events, store=store)


def day_of(days_ago: float) -> date:
    return (CUTOFF - timedelta(days=days_ago)).date()


def test_a_second_run_expands_nothing_and_finds_the_same(tmp_path: Path, store: Store) -> None:
    events = sessions(1)
    first = build(tmp_path / "a", events, store)
    again = build(tmp_path / "b", events, store)
    assert len(first.expanded_days) == 8
    assert list(again.expanded_days) == []
    assert counted(again) == counted(first) == counted(build(tmp_path / "c", events, None))
    assert min(len(pairs) for pairs in counted(first).values()) > 20


def test_a_new_day_is_expanded_alone_and_equals_the_full_rebuild(tmp_path: Path, store: Store) -> None:
    events = sessions(2)
    before = [row for row in events if row["timestamp"].date() < day_of(0.5)]
    build(tmp_path / "a", before, store)
    after = build(tmp_path / "b", events, store)
    assert list(after.expanded_days) == [day_of(0.5)]
    assert counted(after) == counted(build(tmp_path / "c", events, None))
    assert list(build(tmp_path / "d", events, store).expanded_days) == []


def test_a_changed_day_is_expanded_with_the_days_whose_sessions_reach_back_into_it(
    tmp_path: Path, store: Store
) -> None:
    over_midnight = log(
        bought("u1", "s1", "a", days_ago=3.1),
        bought("u1", "s1", "b", days_ago=2.9),
        bought("u2", "s2", "c", days_ago=1.5),
    )
    build(tmp_path / "a", over_midnight, store)
    changed = [*over_midnight, *bought("u3", "s3", "a", days_ago=3.2)]
    after = build(tmp_path / "b", changed, store)
    assert list(after.expanded_days) == [day_of(3.1), day_of(2.9)]
    assert [pair[:2] for pair in counted(after)["bought"]] == [("a", "b")]


def test_a_new_item_moves_rows_and_no_pair(tmp_path: Path, store: Store) -> None:
    events = sessions(3)
    first = build(tmp_path / "a", events, store)
    after = build(tmp_path / "b", [*events, *bought("u1", "new", "a first item", days_ago=0.55)], store)
    assert after.by_cutoff[-1].item_ids[0] == "a first item"
    assert counted(after) == counted(first)
    assert len(after.expanded_days) == 1


def test_a_pack_that_is_gone_is_made_again(tmp_path: Path, store: Store) -> None:
    events = sessions(4)
    first = build(tmp_path / "a", events, store)
    for name in store.list_dir(day_pairs.TABLE):
        if name.endswith(".parquet"):
            store.delete(f"{day_pairs.TABLE}/{name}")
    again = build(tmp_path / "b", events, store)
    assert len(again.expanded_days) == 8
    assert counted(again) == counted(first)


def test_many_packs_become_one(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_pairs, "MAX_PACKS", 3)
    events = sessions(5)
    numbers = []
    for day in range(8):
        known = [row for row in events if row["timestamp"].date() <= day_of(7.5 - day)]
        numbers.append(len(build(tmp_path / str(day), known, store).expanded_days))
    assert numbers == [1] * 8
    assert len(read_shortcut(store, f"{day_pairs.TABLE}/state.json")) <= 3
    assert counted(build(tmp_path / "x", events, store)) == counted(build(tmp_path / "y", events, None))


def test_what_is_kept_are_positions_alone(tmp_path: Path, store: Store) -> None:
    build(tmp_path / "a", sessions(6), store)
    (pack,) = (Path(store.root) / day_pairs.TABLE).glob("*.parquet")
    assert {field.name: str(field.type) for field in pq.read_schema(pack)} == {"earlier": "int32", "later": "int32"}
