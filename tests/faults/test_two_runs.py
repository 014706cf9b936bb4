"""Two runs of a step at once: one wins whole and the other says so, or finds the work done."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from small_shop import SmallShop

from components.core.command import PIPELINE
from components.core.errors import BusyError
from components.core.settings import load_settings
from components.core.step import Step, StepContext, StepReport, execute


@pytest.mark.slow
@pytest.mark.parametrize("step", PIPELINE)
def test_of_two_runs_at_once_one_wins_whole(shop: SmallShop, undisturbed: dict[str, dict[str, Any]], step: str) -> None:
    shop.before(step)
    ends = shop.together(step, step)
    won = [end for end in ends if end["status"] == 0]
    lost = [end for end in ends if end["status"] != 0]
    assert won, ends
    for end in lost:
        assert end["status"] == 1
        assert end["err"].splitlines()[-1] == (
            f"basketweave: Another process is running the step '{step}'. Wait for it to finish, then try again."
        )
    assert lost or any("reused" in end["out"] for end in won) or step == "deploy"
    seen = shop.look()
    assert (seen["problems"], seen["staging"]) == ([], [])
    assert seen["content"] == undisturbed[step]["content"]


@pytest.mark.slow
def test_of_two_runs_of_one_day_at_once_one_wins_whole(shop: SmallShop, undisturbed: dict[str, dict[str, Any]]) -> None:
    day = shop.last_day()
    shop.before("validate")
    assert shop.run("ingest", "--day", day)["status"] == 0
    alone = shop.look()["content"]
    shop.before("validate")
    ends = shop.together("ingest", "ingest", options=["--day", day])
    assert 0 in [end["status"] for end in ends], ends
    seen = shop.look()
    assert (seen["problems"], seen["content"]) == ([], alone)


def test_who_comes_second_is_told_while_the_first_still_runs(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    told: list[str] = []

    def run(context: StepContext) -> StepReport:
        with pytest.raises(BusyError) as refused:
            execute(step, settings=settings, inputs={}, run_id="second", as_of=context.moment)
        told.append(str(refused.value))
        context.output.path("data.txt").write_text("first")
        return StepReport(summary="", rows=1)

    step = Step(name="list", kind="numbers", inputs=(), sections=(), rooms=("components.core.errors",), run=run)
    first = execute(step, settings=settings, inputs={}, run_id="first", as_of=datetime(2024, 5, 1, tzinfo=UTC))
    assert told == ["Another process is running the step 'list'. Wait for it to finish, then try again."]
    assert first.manifest.run_id == "first"
