"""What a bundle must meet before it may serve. A gate is one declaration here; the report and the verdict follow.

A gate passes only by a figure that says so: a missing figure and nan fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from components.core.sections import EvaluateSettings
from components.evaluate import figures
from components.evaluate.contest import MODEL, NEW_ITEMS
from components.evaluate.lineage import Check
from components.evaluate.scorecard import Scorecard
from components.measures.bootstrap import Interval

Verdict = Literal["promote", "reject", "insufficient"]
Rule = Literal["at least", "above"]

_METRIC_NAMES = {"recall": "recall", "ndcg": "NDCG"}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition. `baseline` set: the condition is on the model's lead over that baseline, else on the model."""

    name: str
    setting: str
    metric: str
    rule: Rule
    threshold: Callable[[EvaluateSettings], float]
    baseline: str | None = None
    on_failure: Verdict = "reject"


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """How a gate went; `value` is None where the figure is missing."""

    name: str
    condition: str
    value: float | None
    threshold: float
    passed: bool
    on_failure: Verdict


@dataclass(frozen=True, kw_only=True)
class Judgement:
    verdict: Verdict
    checks: tuple[Check, ...]
    gates: tuple[GateResult, ...]
    reasons: tuple[str, ...]

    @property
    def failed(self) -> list[str]:
        """Names of the checks and gates that did not pass."""
        return [check.name for check in self.checks if not check.passed] + [
            gate.name for gate in self.gates if not gate.passed
        ]


def _beats(baseline: str) -> Gate:
    return Gate(
        name=f"beats {baseline}",
        setting=NEW_ITEMS,
        metric="recall",
        rule="above",
        threshold=lambda _: 0.0,
        baseline=baseline,
    )


GATES: tuple[Gate, ...] = (
    Gate(
        name="enough users",
        setting=NEW_ITEMS,
        metric="users",
        rule="at least",
        threshold=lambda settings: settings.min_users,
        on_failure="insufficient",
    ),
    Gate(
        name="recall floor",
        setting=NEW_ITEMS,
        metric="recall",
        rule="at least",
        threshold=lambda settings: settings.min_recall,
    ),
    Gate(
        name="NDCG floor",
        setting=NEW_ITEMS,
        metric="ndcg",
        rule="at least",
        threshold=lambda settings: settings.min_ndcg,
    ),
    Gate(
        name="coverage floor",
        setting=NEW_ITEMS,
        metric="coverage",
        rule="at least",
        threshold=lambda settings: settings.min_coverage,
    ),
    _beats("popularity"),
    _beats("recent popularity"),
    _beats("category popularity"),
    _beats("item-kNN"),
    _beats("RP3"),
)


def judge(
    checks: Sequence[Check], card: Scorecard | None, settings: EvaluateSettings, *, gates: Sequence[Gate] = GATES
) -> Judgement:
    """`card` is None where a failed check left nothing to measure; every gate then fails."""
    results = tuple(_apply(gate, card, settings) for gate in gates)
    broken = [check.sentence for check in checks if not check.passed]
    failed = [result for result in results if not result.passed]
    reasons = broken + [_reason(result) for result in failed]
    if broken or card is None or not results:
        verdict: Verdict = "reject"
    elif any(result.on_failure == "insufficient" for result in failed):
        # With too few users the other figures say nothing, good or bad.
        verdict = "insufficient"
    else:
        verdict = "reject" if failed else "promote"
    return Judgement(verdict=verdict, checks=tuple(checks), gates=results, reasons=tuple(reasons))


def _apply(gate: Gate, card: Scorecard | None, settings: EvaluateSettings) -> GateResult:
    value = _value(gate, card)
    threshold = gate.threshold(settings)
    # Written so that nan, which is neither above nor below anything, does not pass.
    passed = value is not None and bool(value >= threshold if gate.rule == "at least" else value > threshold)
    return GateResult(
        name=gate.name,
        condition=_condition(gate, threshold, settings),
        value=value if value == value else None,
        threshold=threshold,
        passed=passed,
        on_failure=gate.on_failure,
    )


def _value(gate: Gate, card: Scorecard | None) -> float | None:
    """The figure that the gate looks at; None where it is missing."""
    result = card.settings.get(gate.setting) if card else None
    if result is None:
        return None
    if gate.metric == "users":
        return float(result.users)
    if gate.baseline is not None:
        difference = result.differences.get(gate.baseline, {}).get(gate.metric)
        return difference.lower if difference else None
    standing = result.standings.get(MODEL)
    if standing is None:
        return None
    figure = standing.metrics.get(gate.metric) or getattr(standing, gate.metric, None)
    return figure.mean if isinstance(figure, Interval) else figure


def _condition(gate: Gate, threshold: float, settings: EvaluateSettings) -> str:
    if gate.metric == "users":
        return f"users with a target: {gate.rule} {threshold:g}"
    metric = gate.metric if gate.metric == "coverage" else f"{_METRIC_NAMES[gate.metric]}@{settings.cutoff_k}"
    if gate.baseline is None:
        return f"{metric}: {gate.rule} {threshold:g}"
    return f"lead over {gate.baseline} in {metric}, lower {settings.confidence:.0%} bound: {gate.rule} {threshold:g}"


def _reason(result: GateResult) -> str:
    found = "it is missing or not a number" if result.value is None else f"it is {figures.plain(result.value)}"
    return f"{result.name}: wanted {result.condition}; {found}."
