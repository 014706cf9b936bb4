"""Drift asks for a retrain within its cool-down and weekly budget, whatever the clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import ArtifactError
from components.core.sections import MonitorSettings
from components.core.store import Store
from components.monitor.retrain import STATE, Decision, decide, read_requests

NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
DRIFTED: dict[str, Any] = {"verdict": "drift", "why": "drift: sessions", "bundle": "ab" * 32, "alarmed_in_a_row": 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def ask(
    store: Store, days: float = 0.0, *, run: str | None = None, drifted: dict[str, Any] | None = None, **settings: Any
) -> Decision:
    return decide(
        store,
        {**DRIFTED, **(drifted or {})},
        as_of=NOON + timedelta(days=days),
        run_id=run or f"run-{days}",
        settings=MonitorSettings(**settings),
    )


def test_a_drift_asks_and_the_request_says_why_and_of_which_bundle(store: Store) -> None:
    assert ask(store) == Decision(asked=True, why="drift: sessions")
    (request,) = read_requests(store)
    assert (request.as_of, request.bundle, request.why) == (NOON, "ab" * 32, "drift: sessions")


@pytest.mark.parametrize("verdict", ["quiet", "learning"])
def test_no_drift_asks_for_nothing(store: Store, verdict: str) -> None:
    assert ask(store, drifted={"verdict": verdict}) == Decision(asked=False, why=f"the newest window is {verdict}")
    assert read_requests(store) == []


def test_a_second_request_waits_for_the_cool_down(store: Store) -> None:
    assert ask(store, 0).asked
    assert "less than 2 days away" in ask(store, 1.9).why
    assert ask(store, 2).asked


def test_a_week_has_its_budget(store: Store) -> None:
    assert [ask(store, day).asked for day in range(15)] == [day in (0, 2, 7, 9, 14) for day in range(15)]


def test_a_clock_that_jumps_back_and_forth_neither_frees_the_budget_nor_locks_it(store: Store) -> None:
    assert ask(store, 400).asked  # a wrong clock, far ahead
    assert ask(store, 0).asked  # set right: the far future does not stand in the way
    assert not ask(store, -1).asked  # a little back is within the cool-down
    assert not ask(store, 401).asked
    assert not ask(store, 1).asked


def test_the_same_run_asked_again_gives_the_same_answer_and_one_request(store: Store) -> None:
    assert ask(store, run="once").asked
    assert ask(store, run="once").asked
    assert len(read_requests(store)) == 1


def test_more_windows_in_a_row_can_be_wanted(store: Store) -> None:
    refused = ask(store, retrain_after_windows=3, drifted={"alarmed_in_a_row": 2})
    assert refused == Decision(asked=False, why="2 of 3 windows in a row have alarmed")
    assert ask(store, retrain_after_windows=3, drifted={"alarmed_in_a_row": 3}).asked


def test_it_can_be_switched_off_and_a_budget_of_none_is_none(store: Store) -> None:
    assert ask(store, retrain=False).why == "monitor.retrain is off"
    assert "budget of 0" in ask(store, retrain_weekly_budget=0).why


def test_a_state_that_cannot_be_read_stops_with_what_to_do(store: Store) -> None:
    store.write_json(STATE, [{"as_of": "yesterday"}])
    with pytest.raises(ArtifactError, match="Delete it"):
        ask(store)
