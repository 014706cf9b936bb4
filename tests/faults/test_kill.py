"""SIGKILL at thirty moments over all steps: nothing half written is ever read, and a re-run ends as if undisturbed."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest
from small_shop import SmallShop

from components.core.command import KINDS, PIPELINE

SEED = 20_240_501
MOMENTS_OF = {"ingest": 5, "validate": 4, "features": 5, "graph": 5, "train": 5, "evaluate": 3, "deploy": 3}
BY_TIME = 6


def moments() -> list[tuple[str, str, float]]:
    """(step, what is counted, share of the whole): every step by its files, some by the clock as well."""
    generator = random.Random(SEED)
    counted = [(step, "files", generator.random()) for step in PIPELINE for _ in range(MOMENTS_OF[step])]
    return [
        (step, "seconds" if number % (len(counted) // BY_TIME) == 1 else "files", share)
        for number, (step, _, share) in enumerate(counted)
    ]


def test_the_moments_are_thirty_and_in_every_step() -> None:
    assert len(moments()) == sum(MOMENTS_OF.values()) == 30
    assert {step for step, _, _ in moments()} == set(PIPELINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "counted", "share"), [pytest.param(*one, id=f"{one[0]}-{one[1]}-{one[2]:.2f}") for one in moments()]
)
def test_a_step_that_is_killed_ends_as_if_undisturbed_when_it_runs_again(
    shop: SmallShop, undisturbed: dict[str, dict[str, Any]], step: str, counted: str, share: float
) -> None:
    kind, whole = KINDS[step], undisturbed[step]
    shop.before(step)
    ahead = shop.look()["content"]
    if counted == "files":
        killed = shop.run(step, kill_at=1 + int(share * whole["moments"]))
        assert killed["status"] == -signal.SIGKILL
    else:
        shop.run(step, kill_after=share * whole["cpu_seconds"])  # on a quick machine it may have ended by then
    seen = shop.look()
    assert seen["problems"] == []
    assert seen["content"].get(kind) in (ahead.get(kind), whole["content"][kind])
    assert {key: seen["content"][key] for key in ahead if key not in _moving(step)} == {
        key: ahead[key] for key in ahead if key not in _moving(step)
    }
    again = shop.run(step)
    assert again["status"] == 0, again["err"]
    after = shop.look()
    assert after["content"] == whole["content"]
    assert (after["problems"], after["staging"]) == ([], [])
    assert [name for name in after["parts"] if not name.startswith(".")] == []


def _moving(step: str) -> set[str]:
    """What a step that is half way may have moved: its own pointer, the feature store, the registry."""
    return {KINDS[step], "online rows", "registry", "pointer"}
