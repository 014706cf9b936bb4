"""A clock that is set back changes no artifact, breaks no order, and hides no running service."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_shop import SmallShop

from components.core.artifact import ArtifactRef
from components.core.command import PIPELINE
from components.core.live import ServiceRecord, is_alive, move_pointer, process_start, read_pointer
from components.core.store import Store


@pytest.mark.slow
def test_every_step_makes_the_same_under_a_clock_that_runs_backwards(
    shop: SmallShop, undisturbed: dict[str, dict[str, Any]]
) -> None:
    shop.before("ingest")
    for number, step in enumerate(PIPELINE):
        if step == "train":
            shop.take_tracking_database()
        end = shop.run(step, hours_back=100 * (number + 1))
        assert end["status"] == 0, end["err"]
        assert shop.look()["content"] == undisturbed[step]["content"], step
    # And back in time present: what was made 'earlier' is found and reused.
    for step in PIPELINE[:-1]:
        assert "reused" in shop.run(step)["out"], step
    assert shop.look()["content"] == undisturbed["deploy"]["content"]


def test_the_pointer_goes_where_it_was_moved_last_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    first, second = (ArtifactRef(kind="bundle", uri=f"{tmp_path}/bundle/{n}", sha256=n * 64, rows=1) for n in "12")
    for bundle, previous, year in ((first, None, 2024), (second, first, 2023)):
        moment = datetime(year, 5, 1, tzinfo=UTC)
        monkeypatch.setattr("components.core.live.wall_clock", lambda moment=moment: moment)
        move_pointer(store, bundle, previous=previous, run_id="run")
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.bundle, pointer.previous) == (second, first)


def test_a_service_is_alive_also_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reckons when a process started from the present clock; psutil passes that on."""
    record = ServiceRecord(
        host="127.0.0.1",
        port=1,
        pid=os.getpid(),
        started_at=process_start(os.getpid()),
        workers=1,
        follows_pointer=True,
    )
    started = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: started - 7200)
    assert is_alive(record)
    assert not is_alive(record.model_copy(update={"started_at": record.started_at - 1}))
