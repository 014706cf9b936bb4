"""Gates fail closed: what is missing, not a number, or not clearly better does not pass."""

from __future__ import annotations

import dataclasses
import math

import pytest

from components.core.sections import EvaluateSettings
from components.evaluate.contest import CHAMPION, MODEL, NEW_ITEMS
from components.evaluate.gates import GATES, judge
from components.evaluate.lineage import Check
from components.evaluate.scorecard import Scorecard, SettingResult, Standing
from components.evaluate.tuning import GRIDS
from components.measures.bootstrap import Interval

SETTINGS = EvaluateSettings()
HOLDS = (Check(name="bundle cutoff", passed=True, sentence="fits"),)
BASELINES = ("popularity", "recent popularity", "category popularity", "item-kNN", "RP3")


def interval(mean: float) -> Interval:
    return Interval(mean=mean, lower=mean - 0.002, upper=mean + 0.002)


def standing(recall: float = 0.04, ndcg: float = 0.05, coverage: float = 0.1) -> Standing:
    return Standing(
        metrics={"recall": interval(recall), "ndcg": interval(ndcg)},
        coverage=coverage,
        novelty=8.0,
        popularity_lift=2.0,
        diversity=0.8,
        miscalibration=1.0,
        short_share=0.0,
    )


def scorecard(
    *, users: int = 2000, model: Standing | None = None, leads: dict[str, Interval] | None = None
) -> Scorecard:
    leads = {name: interval(0.005) for name in BASELINES} | (leads or {})
    result = SettingResult(
        users=users,
        targets=9000,
        standings={MODEL: model or standing(), "popularity": standing(recall=0.035)},
        differences={name: {"recall": lead} for name, lead in leads.items()},
        best_baseline="popularity",
    )
    return Scorecard(
        k=20,
        confidence=0.95,
        resamples=2000,
        unknown_target_share=0,
        fallback_share=0,
        settings={NEW_ITEMS: result},
        slices=(),
    )


def test_a_bundle_that_meets_everything_is_promoted() -> None:
    judgement = judge(HOLDS, scorecard(), SETTINGS)
    assert (judgement.verdict, judgement.failed, judgement.reasons) == ("promote", [], ())


@pytest.mark.parametrize(
    ("card", "failed"),
    [
        (scorecard(model=standing(recall=0.004)), "recall floor"),
        (scorecard(model=standing(ndcg=0.004)), "NDCG floor"),
        (scorecard(model=standing(coverage=0.002)), "coverage floor"),
        (scorecard(model=standing(recall=math.nan)), "recall floor"),
        (scorecard(model=standing(coverage=math.nan)), "coverage floor"),
        (scorecard(leads={"RP3": interval(math.nan)}), "beats RP3"),
        (scorecard(leads={"item-kNN": interval(0.0)}), "beats item-kNN"),
        (scorecard(leads={"popularity": interval(-0.01)}), "beats popularity"),
    ],
)
def test_one_failed_gate_rejects_and_says_which(card: Scorecard, failed: str) -> None:
    judgement = judge(HOLDS, card, SETTINGS)
    assert (judgement.verdict, judgement.failed[0]) == ("reject", failed)
    assert judgement.reasons[0].startswith(f"{failed}: wanted ")
    # Without a recall nobody can say that it is believable.
    assert judgement.failed[1:] in ([], ["believable beside baselines"])


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_lead_that_might_be_chance_is_insufficient_and_not_promoted(baseline: str) -> None:
    """Its lower bound is at 0: neither a lead nor a loss is shown."""
    judgement = judge(HOLDS, scorecard(leads={baseline: interval(0.002)}), SETTINGS)
    assert (judgement.verdict, judgement.failed) == ("insufficient", [f"beats {baseline}"])


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_that_did_not_take_part_rejects(baseline: str) -> None:
    card = scorecard()
    result = card.settings[NEW_ITEMS]
    differences = {name: lead for name, lead in result.differences.items() if name != baseline}
    without = dataclasses.replace(card, settings={NEW_ITEMS: dataclasses.replace(result, differences=differences)})
    judgement = judge(HOLDS, without, SETTINGS)
    assert (judgement.verdict, judgement.failed) == ("reject", [f"beats {baseline}"])
    assert "missing" in judgement.reasons[0]


def test_a_model_without_figures_fails_every_floor() -> None:
    card = scorecard()
    empty = dataclasses.replace(card.settings[NEW_ITEMS], standings={})
    judgement = judge(HOLDS, dataclasses.replace(card, settings={NEW_ITEMS: empty}), SETTINGS)
    assert judgement.verdict == "reject"
    assert judgement.failed == [
        "recall floor",
        "NDCG floor",
        "coverage floor",
        "full lists",
        "believable beside baselines",
    ]


def test_nothing_measured_is_a_reject_on_every_gate() -> None:
    judgement = judge(HOLDS, None, SETTINGS)
    assert judgement.failed == [gate.name for gate in GATES if gate.baseline != CHAMPION]
    assert judgement.verdict == "reject"


def test_too_few_users_are_insufficient_whatever_the_rest_says() -> None:
    assert judge(HOLDS, scorecard(users=99), SETTINGS).verdict == "insufficient"
    assert judge(HOLDS, scorecard(users=99, model=standing(recall=math.nan)), SETTINGS).verdict == "insufficient"


def test_a_failed_check_rejects_even_the_best_figures() -> None:
    broken = (Check(name="bundle cutoff", passed=False, sentence="It has seen the hold-out."),)
    judgement = judge(broken, scorecard(), SETTINGS)
    assert (judgement.verdict, judgement.reasons) == ("reject", ("It has seen the hold-out.",))
    assert judge(broken, scorecard(users=1), SETTINGS).verdict == "reject"


def test_no_gates_at_all_do_not_promote() -> None:
    assert judge(HOLDS, scorecard(), SETTINGS, gates=()).verdict == "reject"


def test_every_baseline_of_new_items_has_its_gate() -> None:
    gated = {gate.baseline for gate in GATES if gate.baseline and gate.rule == "above"}
    assert gated == set(GRIDS) - {"own frequency"} == set(BASELINES)
    assert len({gate.name for gate in GATES}) == len(GATES)
