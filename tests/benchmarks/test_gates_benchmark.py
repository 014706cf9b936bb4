"""What the bench of the gates says follows from its draws, and what it plants is what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gates.__main__ import misses, of_fault, shares, thinned
from benchmarks.gates.faults import FAULTS, Caught, Fault, _with_entry
from components.evaluate.gates import GATES
from components.evaluate.recount import GRAPH_FRESH, HISTORIES, POPULARITY, SKEW, TRAINING_SKEW
from components.model.histories import Histories


def fault(*detectors: str) -> Fault:
    return Fault(name="a fault", detectors=detectors, draw=lambda *_: Caught(verdict="reject", failed=()))


def test_a_fault_is_caught_by_its_own_detector_alone() -> None:
    draws = [
        Caught(verdict="reject", failed=("recall kept",)),
        Caught(verdict="reject", failed=("graph fresh", "recall kept"), recall_change=-0.2),
        Caught(verdict="promote", failed=()),
        Caught(verdict="hold", failed=("graph fresh",), recall_change=0.0),
    ]
    found = of_fault(fault("graph fresh"), draws)
    assert (found["caught"], found["stopped"], found["recall_change"]) == (0.5, 0.75, -0.1)
    assert (found["reject"], found["hold"], found["promote"]) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize(("rejects", "caught", "count"), [(0.05, 0.95, 0), (0.06, 0.95, 1), (0.0, 0.94, 1), (1, 0, 2)])
def test_a_missed_bar_is_said_and_bars_hold_their_own_value(rejects: float, caught: float, count: int) -> None:
    result: dict[str, Any] = {
        "aa": {"reject": rejects},
        "faults": {"a fault": {"caught": caught, "detectors": ("one",)}},
    }
    assert len(misses(result)) == count


def test_a_thinned_entrant_loses_the_share_of_users_that_it_should() -> None:
    lists = np.ones((20_000, 3), dtype=np.int64)
    lost = (thinned(lists, 0.1, np.random.default_rng(1)) == -1).all(axis=1)
    assert lost.mean() == pytest.approx(0.1, abs=0.01)


def test_the_leaked_entry_stands_in_its_users_history_and_moves_no_other() -> None:
    histories = Histories.from_lists([[1, 2], [], [3]], [[1.0, 1.0], [], [1.0]], [[2.0, 3.0], [], [4.0]])
    leaked = _with_entry(histories, 1, 9)
    assert [leaked.rows(torch.tensor([user])).items.tolist() for user in range(3)] == [[1, 2], [9], [3]]


def test_every_detector_is_a_gate_or_a_check_of_the_evaluation() -> None:
    known = {gate.name for gate in GATES} | {POPULARITY, GRAPH_FRESH, HISTORIES, SKEW, TRAINING_SKEW}
    named = {detector.partition(":")[0] for one in FAULTS for detector in one.detectors}
    assert named <= known | {"trained on this log"}
    assert shares([Caught(verdict="promote", failed=())])["promote"] == 1.0
