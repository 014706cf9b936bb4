"""What a bundle must meet before it may serve. A gate is one declaration here; the report and the verdict follow.

A gate passes only by a figure that says so: a missing figure and nan fail. How a rule is applied stands in rules.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.core.sections import EvaluateSettings
from components.evaluate.contest import CHAMPION
from components.evaluate.lineage import Check
from components.evaluate.parts import CATEGORY, ITEMS, PRICE, USERS
from components.evaluate.rules import BEST_BASELINE, Gate, GateResult, Opponent, Verdict, apply_gates, reason
from components.evaluate.scorecard import Scorecard


@dataclass(frozen=True, kw_only=True)
class Judgement:
    verdict: Verdict
    checks: tuple[Check, ...]
    gates: tuple[GateResult, ...]
    reasons: tuple[str, ...]
    is_accepted: bool = False
    """A person has let a hold pass."""

    @property
    def failed(self) -> list[str]:
        """Names of the checks and gates that stand in the way."""
        return [check.name for check in self.checks if not check.passed] + [
            gate.name for gate in self.gates if gate.stands_in_the_way
        ]


def _beats(baseline: str) -> Gate:
    return Gate(name=f"beats {baseline}", metric="recall", rule="above", threshold=lambda _: 0.0, baseline=baseline)


def _slices_hold(group: str) -> Gate:
    return Gate(
        name=f"no {group} lost",
        metric="recall",
        slice=group,
        rule="not worse",
        threshold=lambda settings: settings.slice_margin,
        baseline=CHAMPION,
    )


GATES: tuple[Gate, ...] = (
    Gate(
        name="enough users",
        metric="users",
        rule="at least",
        threshold=lambda settings: settings.min_users,
        on_failure="insufficient",
    ),
    Gate(name="recall floor", metric="recall", rule="at least", threshold=lambda settings: settings.min_recall),
    Gate(name="NDCG floor", metric="ndcg", rule="at least", threshold=lambda settings: settings.min_ndcg),
    Gate(name="coverage floor", metric="coverage", rule="at least", threshold=lambda settings: settings.min_coverage),
    Gate(name="full lists", metric="short_share", rule="at most", threshold=lambda settings: settings.max_short_share),
    Gate(
        name="few fallbacks",
        metric="fallback_share",
        rule="at most",
        threshold=lambda settings: settings.max_fallback_share,
    ),
    # The floor: what is no better than these does not ship.
    _beats("popularity"),
    _beats("recent popularity"),
    _beats("category popularity"),
    _beats("item-kNN"),
    _beats("RP3"),
    # The champion: lose nothing that matters, in all and in every slice.
    Gate(
        name="champion comparable",
        metric="champion",
        rule="comparable",
        threshold=lambda _: 0.0,
        baseline=CHAMPION,
        on_failure="hold",
    ),
    Gate(
        name="recall kept",
        metric="recall",
        rule="not worse",
        threshold=lambda settings: settings.margin,
        baseline=CHAMPION,
    ),
    Gate(
        name="NDCG kept",
        metric="ndcg",
        rule="not worse",
        threshold=lambda settings: settings.margin,
        baseline=CHAMPION,
    ),
    _slices_hold(USERS),
    _slices_hold(ITEMS),
    _slices_hold(CATEGORY),
    _slices_hold(PRICE),
    # Guardrails: what recall does not see.
    Gate(
        name="coverage kept",
        metric="coverage",
        rule="at least",
        threshold=lambda settings: settings.min_coverage_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="popularity lift kept",
        metric="popularity_lift",
        rule="at most",
        threshold=lambda settings: settings.max_popularity_lift_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="novelty kept",
        metric="novelty",
        rule="at least",
        threshold=lambda settings: settings.min_novelty_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="diversity kept",
        metric="diversity",
        rule="at least",
        threshold=lambda settings: settings.min_diversity_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="calibration kept",
        metric="miscalibration",
        rule="at most",
        threshold=lambda settings: settings.max_miscalibration_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="bundle size",
        metric="size",
        rule="at most",
        threshold=lambda settings: settings.max_size_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="request latency",
        metric="latency",
        rule="at most",
        threshold=lambda settings: settings.max_latency_ratio,
        baseline=CHAMPION,
    ),
    Gate(
        name="vectors at home",
        metric="misplaced",
        rule="at most",
        threshold=lambda settings: settings.max_misplaced_excess,
        baseline=CHAMPION,
    ),
    # The ceiling: too good to be true is a question for a person.
    Gate(
        name="believable beside baselines",
        metric="recall",
        rule="at most",
        threshold=lambda settings: settings.max_baseline_ratio,
        baseline=BEST_BASELINE,
        on_failure="hold",
    ),
    Gate(
        name="believable beside champion",
        metric="recall",
        rule="at most",
        threshold=lambda settings: 1 + settings.max_gain,
        baseline=CHAMPION,
        on_failure="hold",
    ),
)


def judge(
    checks: Sequence[Check],
    card: Scorecard | None,
    settings: EvaluateSettings,
    *,
    gates: Sequence[Gate] = GATES,
    opponent: Opponent = Opponent(),  # noqa: B008  # frozen
    bundle_sha256: str = "",
) -> Judgement:
    """`card` is None where a failed check left nothing to measure; every gate then fails."""
    results = apply_gates(gates, card, settings, opponent)
    broken = [check.sentence for check in checks if not check.passed]
    against = [result for result in results if result.stands_in_the_way]
    outcomes = {result.outcome for result in against}
    is_accepted = any(len(accepted) >= 12 and bundle_sha256.startswith(accepted) for accepted in settings.accept_held)
    verdict: Verdict = "promote"
    if broken or card is None or not results:
        verdict = "reject"
    elif any(result.name == "enough users" for result in against):
        # With too few users the other figures say nothing, good or bad.
        verdict = "insufficient"
    elif "reject" in outcomes:
        verdict = "reject"
    elif "hold" in outcomes and not is_accepted:
        verdict = "hold"
    elif "insufficient" in outcomes:
        verdict = "insufficient"
    return Judgement(
        verdict=verdict,
        checks=tuple(checks),
        gates=results,
        reasons=tuple(broken + [reason(result) for result in against]),
        is_accepted=verdict == "promote" and "hold" in outcomes,
    )
