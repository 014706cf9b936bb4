"""What a look at a rollout decides, from counters alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from staged_shop import counted

from components.core.artifact import ArtifactRef
from components.core.observations import Observations, StageCounts, cell_of
from components.core.rollout import Rollout
from components.core.sections import RolloutSettings
from components.deploy.decision import Look, judge, plan

BEGUN = datetime(2020, 3, 1, tzinfo=UTC)
SETTINGS = RolloutSettings(shadow_requests=500, stage_requests=500, shadow_seconds=60, stage_seconds=60)


def rollout(stage: str, share: float = 0.0) -> Rollout:
    ref = ArtifactRef(kind="bundle", uri="somewhere", sha256="a", rows=1)
    return Rollout(
        id="r",
        challenger=ref,
        champion=ref,
        stage=stage,  # type: ignore[arg-type]
        share=share,
        salt="5a",
        started_at=BEGUN,
        stage_started_at=BEGUN,
        run_id="run-1",
    )


def look(stage: str, challenger: dict[str, Any], beside: dict[str, Any], *, after: float = 61, **more: Any) -> Look:
    running = rollout(stage, 0.1 if stage != "shadow" else 0.0)
    other = "champion" if stage == "shadow" else "control"
    counts = StageCounts.model_validate({"arms": {"challenger": challenger, other: beside}, **more})
    seen = Observations(steps={running.step: counts}, workers=1)
    return judge(running, seen, SETTINGS, now=BEGUN + timedelta(seconds=after))


@pytest.mark.parametrize("stage", ["shadow", "canary"])
def test_a_stage_goes_on_when_it_has_seen_enough_for_long_enough(stage: str) -> None:
    fine = counted(requests=500)
    assert look(stage, fine, fine).decision == "go on"
    assert look(stage, fine, fine, after=59).decision == "wait"
    assert look(stage, counted(requests=499), fine).decision == "wait"
    assert look(stage, fine, counted(requests=499)).decision == "wait"


def test_a_stage_that_sees_too_little_ends_the_rollout_without_a_verdict() -> None:
    little = counted(requests=499)
    late = SETTINGS.stage_timeout_seconds + 1
    assert look("canary", little, little, after=late).decision == "too little"


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (counted(requests=500, errors=20), "error share 0.04"),
        (counted(requests=500, empty=60), "empty share 0.12"),
        (counted(requests=500, fallbacks=80), "fallback share 0.16"),
        (counted(requests=500, seconds=0.5), "p99 seconds"),
        (counted(requests=500, clicks=100), "click-through 0.2 against 0.6"),
    ],
)
def test_each_measure_aborts_a_canary_by_its_name(broken: dict[str, Any], named: str) -> None:
    found = look("canary", broken, counted(requests=500, clicks=300), after=1)
    assert found.decision == "abort"
    assert named in found.reason


def test_lists_of_batches_do_not_hide_slow_requests() -> None:
    timed = {cell_of(0.01): 450, cell_of(0.5): 50}
    slow, fine = ({**counted(requests=50_000), "seconds": seconds} for seconds in (timed, {cell_of(0.01): 500}))
    found = look("canary", slow, fine)
    assert found.decision == "abort"
    assert "p99 seconds" in found.reason


@pytest.mark.parametrize(
    "fine",
    [
        counted(requests=500, clicks=305, errors=1),
        counted(requests=500, clicks=290, empty=6),
        counted(requests=500, clicks=310, seconds=0.015),
        counted(requests=500, clicks=500),
    ],
)
def test_a_little_noise_and_a_gain_abort_nothing(fine: dict[str, Any]) -> None:
    assert look("canary", fine, counted(requests=500, clicks=300)).decision == "go on"


@pytest.mark.parametrize(("clicks", "decision"), [(99, "go on"), (100, "abort")])
def test_fewer_clicks_than_the_settings_ask_for_condemn_nobody(clicks: int, decision: str) -> None:
    running = rollout("canary", 0.1)
    arms = {"challenger": counted(requests=500), "control": counted(requests=500, clicks=clicks)}
    seen = Observations(steps={running.step: StageCounts.model_validate({"arms": arms})}, workers=1)
    strict = SETTINGS.model_copy(update={"min_clicks": 100})
    assert judge(running, seen, strict, now=BEGUN + timedelta(seconds=61)).decision == decision


def test_shadow_lists_that_have_nothing_in_common_abort_where_the_settings_say_so() -> None:
    fine = counted(requests=500)
    running = rollout("shadow")
    counts = StageCounts.model_validate(
        {"arms": {"challenger": fine, "champion": fine}, "shadowed": 500, "overlap_sum": 10.0}
    )
    strict = SETTINGS.model_copy(update={"min_overlap": 0.1})
    found = judge(running, Observations(steps={"shadow": counts}, workers=1), strict, now=BEGUN)
    assert found.decision == "abort"
    assert "overlap of lists 0.02" in found.reason


def test_a_challenger_that_a_worker_cannot_load_is_aborted_with_its_words() -> None:
    seen = Observations(workers=2, refusals={"w1": "its hash differs"})
    found = judge(rollout("shadow"), seen, SETTINGS, now=BEGUN)
    assert (found.decision, found.reason) == ("abort", "1 of 2 workers cannot load it: its hash differs")


def test_clicks_are_compared_over_all_stages_so_far() -> None:
    """Each stage alone has too few clicks to tell."""
    running = rollout("canary", 0.5)
    weak = {"challenger": counted(requests=800, clicks=60), "control": counted(requests=800, clicks=110)}
    steps = {stage.step: StageCounts.model_validate({"arms": weak}) for stage in plan(SETTINGS)[1:-1]}
    alone = Observations(steps={running.step: steps[running.step]}, workers=1)
    assert judge(running, alone, SETTINGS, now=BEGUN).decision == "wait"
    assert judge(running, Observations(steps=steps, workers=1), SETTINGS, now=BEGUN).decision == "abort"


def test_the_plan_has_a_watch_where_it_is_asked_for() -> None:
    assert [stage.step for stage in plan(SETTINGS)] == ["shadow", "canary-1", "canary-10", "canary-50", "watch"]
    assert plan(SETTINGS.model_copy(update={"watch_seconds": 0}))[-1].step == "canary-50"
