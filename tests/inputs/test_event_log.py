"""The clean log as integers: who is in it, and what was known and taken when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clean_log import event_table

from components.core.artifact import write_parquet
from components.core.errors import ContractError
from components.core.split import Window
from components.inputs.events import EventLog, read_events, target_types

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
ITEM_IDS = pa.array(["a", "b", "c"])


def row(user: str | None, item: str, *, hours: float = 0, kind: str = "purchase") -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "timestamp": NOON + timedelta(hours=hours), "event_type": kind}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., EventLog]:
    """read(day, day, ...) -> the log of days of rows."""

    def reader(*days: list[dict[str, Any]]) -> EventLog:
        paths = [tmp_path / f"{number}.parquet" for number in range(len(days))]
        for path, rows in zip(paths, days, strict=True):
            write_parquet(event_table(rows), path)
        return read_events(paths, item_ids=ITEM_IDS, track=lambda paths: paths)

    return reader


def test_users_are_sorted_and_items_are_places_in_the_bundle(read: Callable[..., EventLog]) -> None:
    log = read([row("u2", "c"), row("u1", "a")], [row("u2", "b")])
    assert log.user_ids.to_pylist() == ["u1", "u2"]
    assert log.user_E.tolist() == [1, 0, 1]
    assert log.item_E.tolist() == [2, 0, 1]
    assert (log.num_users, log.num_items, log.num_unknown_items) == (2, 3, 0)


def test_anonymous_events_and_events_without_weight_are_left_out(read: Callable[..., EventLog]) -> None:
    log = read([row(None, "a"), row("u1", "b", kind="impression"), row("u1", "c", kind="view"), row("u1", "c")])
    assert log.item_E.tolist() == [2, 2]
    assert log.weight_E.tolist() == [0.2, 1]
    assert log.is_target_E.tolist() == [False, True]


def test_a_kind_that_nobody_weighed_counts_as_little_as_a_view(read: Callable[..., EventLog]) -> None:
    assert read([row("u1", "a", kind="scan"), row("u1", "a")]).weight_E.tolist() == [0.2, 1]


def test_items_that_the_bundle_lacks_stand_after_its_own(read: Callable[..., EventLog]) -> None:
    log = read([row("u1", "z"), row("u1", "a"), row("u1", "y"), row("u1", "z")])
    assert log.num_unknown_items == 2
    assert log.item_E.tolist() == [4, 0, 3, 4]
    everything = Window(start=NOON, end=NOON + timedelta(days=1))
    assert log.targets_in(everything).toarray().tolist() == [[1, 0, 0, 1, 1]]
    assert log.known_at(everything.end, category=np.zeros(3)).seen.toarray().tolist() == [[1, 0, 0]]


def test_a_window_holds_its_start_and_not_its_end(read: Callable[..., EventLog]) -> None:
    log = read([row("u1", "a", hours=-1e-6), row("u1", "b", hours=0), row("u1", "b", hours=1), row("u1", "c", hours=2)])
    window = Window(start=NOON, end=NOON + timedelta(hours=2))
    assert log.targets_in(window).toarray().tolist() == [[0, 1, 0]]
    assert log.known_at(NOON, category=np.zeros(3)).seen.toarray().tolist() == [[1, 0, 0]]


def test_views_are_known_and_no_targets(read: Callable[..., EventLog]) -> None:
    log = read([row("u1", "a", kind="view"), row("u1", "b")])
    window = Window(start=NOON, end=NOON + timedelta(hours=1))
    assert log.targets_in(window).toarray().tolist() == [[0, 1, 0]]
    assert log.known_at(window.end, category=np.zeros(3)).seen.toarray().tolist() == [[1, 1, 0]]


def test_a_log_without_purchases_is_judged_by_its_strongest_kind() -> None:
    assert target_types(["view", "cart", "purchase"]) == ("purchase",)
    assert target_types(["view", "cart", "wishlist", "impression"]) == ("cart", "wishlist")
    assert target_types(["scan"]) == ("scan",)
    with pytest.raises(ContractError, match=r"^No event of the log states a want: its types are impression\."):
        target_types(["impression"])


def test_a_log_without_a_day_is_refused() -> None:
    with pytest.raises(ContractError, match="has no day"):
        read_events([], item_ids=ITEM_IDS, track=lambda paths: paths)
