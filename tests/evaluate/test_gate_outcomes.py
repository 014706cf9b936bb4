"""Three ends beside the champion, many slices at once, guardrails: what each does to the verdict."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from test_gates import HOLDS, SETTINGS, interval, scorecard, standing

from components.core.sections import EvaluateSettings
from components.evaluate.comparison import Comparison, Contrast, compare
from components.evaluate.contest import CHAMPION, MODEL, NEW_ITEMS
from components.evaluate.gates import GATES, Judgement, judge
from components.evaluate.parts import CATEGORY, GROUPS, ITEMS, PRICE, USERS, ItemFacts, Part, parts_of
from components.evaluate.rules import Opponent
from components.evaluate.scorecard import Scorecard, Standing
from components.measures.interactions import Interactions
from components.measures.slices import PRICE_BANDS, largest_groups, price_quarters

BESIDE = {"size": 1.0, "latency": 1.0, "misplaced": 0.0}


def contrast(
    *, worse: float = 1.0, not_worse: float = 0.001, group: str | None = None, name: str = "all users", **changes: Any
) -> Contrast:
    given: dict[str, Any] = {
        "metric": "recall",
        "users": 2000,
        "champion": 0.04,
        "challenger": 0.04,
        "difference": interval(0.0),
        "margin": 0.002,
        **changes,
    }
    return Contrast(group=group, name=name, p_worse=worse, p_not_worse=not_worse, **given)


def beside(
    *slices: Contrast,
    recall: Contrast | None = None,
    champion: Standing | None = None,
    model: Standing | None = None,
    opponent: dict[str, float] | None = None,
    settings: EvaluateSettings = SETTINGS,
) -> Judgement:
    card = scorecard(model=model)
    result = card.settings[NEW_ITEMS]
    result.standings[CHAMPION] = champion or standing()  # type: ignore[index]  # a dict
    whole = {"recall": recall or contrast(), "ndcg": contrast(metric="ndcg")}
    comparison = Comparison(champion_sha256="c", whole=whole, slices=slices)
    whole_card = Scorecard(**{**card.__dict__, "comparison": comparison})
    state = Opponent(state="comparable", sentence="beside it", beside=BESIDE if opponent is None else opponent)
    return judge(HOLDS, whole_card, settings, opponent=state)


def test_not_worse_in_all_is_a_promotion() -> None:
    assert (beside().verdict, beside().failed) == ("promote", [])


def test_not_told_apart_is_insufficient_and_shown_worse_is_a_reject() -> None:
    unclear = beside(recall=contrast(worse=0.3, not_worse=0.2))
    assert (unclear.verdict, unclear.failed) == ("insufficient", ["recall kept"])
    assert "not told apart from a loss that matters" in unclear.reasons[0]
    worse = beside(recall=contrast(worse=0.001, not_worse=1.0, difference=interval(-0.01)))
    assert (worse.verdict, worse.failed) == ("reject", ["recall kept"])
    assert "a loss is shown: −.0100 beside the champion's .0400" in worse.reasons[0]


def test_one_ruined_slice_rejects_though_the_mean_holds() -> None:
    ruined = contrast(group=ITEMS, name="tail", worse=0.0005, not_worse=1.0)
    judgement = beside(ruined, contrast(group=ITEMS, name="head"))
    assert (judgement.verdict, judgement.failed) == ("reject", ["no items bought lost: tail"])


def test_many_slices_are_corrected_so_that_chance_alone_rejects_none() -> None:
    """p = 0.02 would reject alone; as the smallest of 22 it does not."""
    by_chance = [contrast(group=CATEGORY, name=str(n), worse=0.02 if n == 0 else 0.5, not_worse=0.5) for n in range(20)]
    judgement = beside(*by_chance)
    assert judgement.verdict == "promote"
    outcomes = {gate.name: gate.outcome for gate in judgement.gates}
    assert outcomes["no category lost: 0"] == "insufficient"


def test_a_slice_passes_only_when_the_correction_lets_it() -> None:
    slices = [contrast(group=USERS, name=str(n), worse=1.0, not_worse=0.03) for n in range(2)]
    outcomes = {gate.name: gate.outcome for gate in beside(*slices).gates}
    assert outcomes["no users lost: 0"] == "insufficient"
    alone = {gate.name: gate.outcome for gate in beside(slices[0]).gates}
    assert alone["no users lost: 0"] == "pass"


@pytest.mark.parametrize(("worse", "not_worse"), [(0.0001, 1.0), (1.0, 0.0001)])
def test_a_slice_with_few_users_is_insufficient_whatever_its_figures(worse: float, not_worse: float) -> None:
    tiny = contrast(group=PRICE, name="dearest quarter", users=99, worse=worse, not_worse=not_worse)
    judgement = beside(tiny)
    (gate,) = (gate for gate in judgement.gates if gate.name == "no price band lost: dearest quarter")
    assert (gate.outcome, gate.passed, gate.stands_in_the_way) == ("insufficient", False, False)
    assert judgement.verdict == "promote"


@pytest.mark.parametrize("missing", [{"margin": math.nan}, {"difference": interval(math.nan)}])
def test_a_comparison_without_a_number_rejects(missing: dict[str, Any]) -> None:
    judgement = beside(recall=contrast(worse=math.nan, not_worse=math.nan, **missing))
    assert (judgement.verdict, judgement.failed) == ("reject", ["recall kept"])


def test_a_champion_without_a_comparison_rejects() -> None:
    state = Opponent(state="comparable", sentence="", beside=BESIDE)
    judgement = judge(HOLDS, scorecard(), SETTINGS, opponent=state)
    assert judgement.verdict == "reject"
    assert {"recall kept", "NDCG kept", "coverage kept"} <= set(judgement.failed)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"coverage": 0.07}, "coverage kept"),
        ({"popularity_lift": 2.6}, "popularity lift kept"),
        ({"novelty": 7.0}, "novelty kept"),
        ({"diversity": 0.7}, "diversity kept"),
        ({"miscalibration": 1.3}, "calibration kept"),
        ({"short_share": 0.02}, "full lists"),
        ({"novelty": math.nan}, "novelty kept"),
        ({"diversity": math.nan}, "diversity kept"),
    ],
)
def test_each_guardrail_rejects_by_itself(change: dict[str, float], failed: str) -> None:
    judgement = beside(model=Standing(**{**standing().__dict__, **change}))
    assert (judgement.verdict, judgement.failed) == ("reject", [failed])


@pytest.mark.parametrize(
    ("figures", "failed"),
    [
        ({"size": 1.6}, "bundle size"),
        ({"latency": 1.6}, "request latency"),
        ({"misplaced": 0.02}, "vectors at home"),
        ({"latency": math.nan}, "request latency"),
    ],
)
def test_each_figure_of_the_bundle_itself_rejects(figures: dict[str, float], failed: str) -> None:
    judgement = beside(opponent={**BESIDE, **figures})
    assert (judgement.verdict, judgement.failed) == ("reject", [failed])
    without = {name: value for name, value in BESIDE.items() if name not in figures}
    assert beside(opponent=without).failed == [failed]


def test_without_categories_what_needs_them_does_not_apply() -> None:
    bare = Standing(**{**standing().__dict__, "diversity": math.nan, "miscalibration": math.nan})
    card = scorecard(model=bare)
    card.settings[NEW_ITEMS].standings[CHAMPION] = bare  # type: ignore[index]  # a dict
    comparison = Comparison(
        champion_sha256="c", whole={"recall": contrast(), "ndcg": contrast(metric="ndcg")}, slices=()
    )
    whole = Scorecard(**{**card.__dict__, "comparison": comparison, "has_no_categories": True})
    judgement = judge(HOLDS, whole, SETTINGS, opponent=Opponent(state="comparable", sentence="", beside=BESIDE))
    assert judgement.verdict == "promote"
    outcomes = {gate.name: gate.outcome for gate in judgement.gates}
    assert outcomes["diversity kept"] == outcomes["calibration kept"] == "not applicable"


def test_reject_goes_before_hold_and_hold_before_insufficient() -> None:
    unclear = contrast(worse=0.3, not_worse=0.2)
    high = standing(recall=0.09)
    assert beside(model=high).verdict == "hold"
    assert beside(model=high, recall=unclear).verdict == "hold"
    assert beside(model=high, recall=unclear, opponent={**BESIDE, "size": 9.0}).verdict == "reject"


def test_every_group_of_slices_has_its_gate() -> None:
    assert {gate.slice for gate in GATES if gate.slice} == set(GROUPS)


def test_the_ends_of_a_comparison_are_those_of_a_recount_by_hand() -> None:
    """200 users with one target each: the champion hits all, the challenger those of the first half of the users."""
    targets = sp.csr_matrix((np.ones(200), (np.arange(200), np.zeros(200, dtype=int))), shape=(200, 3))
    champion = np.zeros((200, 1), dtype=np.int64)
    challenger = np.where(np.arange(200) < 100, 0, 1)[:, None]
    members = np.arange(200) >= 100
    part = Part(group=USERS, name="second half", members_R=members, targets=targets)
    comparison = compare(
        {MODEL: challenger, CHAMPION: champion}, targets, [part], champion_sha256="c", settings=SETTINGS
    )
    whole, half = comparison.whole["recall"], comparison.slices[0]
    assert (whole.champion, whole.challenger, whole.difference.mean) == (1.0, 0.5, -0.5)
    assert whole.margin == SETTINGS.margin
    # One-sided bounds: 1.645 standard errors of a mean of 200 coin flips.
    assert whole.difference.upper == pytest.approx(-0.5 + 1.645 * 0.5 / np.sqrt(200), abs=0.01)
    assert whole.p_worse == pytest.approx(1 / (1 + SETTINGS.bootstrap_resamples))
    assert whole.p_not_worse == 1.0
    assert (half.users, half.champion, half.challenger, half.difference.lower) == (100, 1.0, 0.0, -1.0)


def test_the_slices_are_those_that_are_promised() -> None:
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 60, 600), generator.integers(0, 40, 600)
    known = Interactions.of(
        users=users, items=items, weights=np.ones(600), ages_days=np.ones(600), category=[0] * 42, num_users=61
    )
    targets = sp.csr_matrix((np.ones(122), (np.repeat(np.arange(61), 2), np.tile([40, 43], 61))), shape=(61, 44))
    facts = ItemFacts.of(["a", None] * 21, np.linspace(1, 9, 42))
    parts = {
        (part.group, part.name): part
        for part in parts_of(targets, rows=np.arange(61), known=known, items=facts, categories=3)
    }
    cold = parts[ITEMS, "cold (under 5 users)"]
    assert cold.members_R.all()
    assert sorted(set(cold.targets.indices.tolist())) == [40, 43]
    assert parts[USERS, "no history"].members_R.tolist() == [False] * 60 + [True]
    assert parts[CATEGORY, "a"].targets.indices.tolist() == [40] * 61
    assert not parts[ITEMS, "head"].members_R.any()


def test_price_quarters_hold_a_quarter_of_what_was_taken_and_equal_prices_stay_together() -> None:
    price = np.array([1.0, 2.0, 3.0, 4.0, np.nan, 4.0])
    taken = np.array([4, 4, 4, 2, 9, 2])
    assert price_quarters(price, taken).tolist() == [0, 1, 2, 3, -1, 3]
    assert len(PRICE_BANDS) == 4
    assert largest_groups(np.array([1, 1, 0, -1, 2]), np.array([1, 1, 2, 9, 0]), most=5) == [0, 1]
