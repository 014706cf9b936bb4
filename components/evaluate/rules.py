"""How a gate's declaration is applied to what was measured. The declarations stand in gates.py.

Everything fails closed: a figure that is missing or no number is a reject, and what cannot be told is never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from components.core.sections import EvaluateSettings
from components.evaluate import figures
from components.evaluate.comparison import Contrast
from components.evaluate.contest import CHAMPION, MODEL, NEW_ITEMS
from components.evaluate.scorecard import Scorecard, Standing
from components.measures.bootstrap import Interval
from components.measures.multiplicity import holm

Verdict = Literal["promote", "hold", "reject", "insufficient"]
Outcome = Literal["pass", "reject", "hold", "insufficient", "not applicable"]
Rule = Literal["at least", "at most", "above", "not worse", "comparable"]
BEST_BASELINE = "best baseline"

# Of the champion: whether there is one, and whether this contest can be a fair one.
ChampionState = Literal["none", "same", "comparable", "has seen", "unreadable"]

_TITLES = {
    "recall": "recall@{k}",
    "ndcg": "NDCG@{k}",
    "popularity_lift": "popularity lift",
    "diversity": "diversity within lists",
    "miscalibration": "distance from the user's categories",
    "short_share": "share of empty or short lists",
    "fallback_share": "share of known users answered like strangers",
    "size": "bytes of the bundle",
    "latency": "p99 of a single request",
    "misplaced": "share of items whose vector is not at home in the graph",
    "users": "users with a target",
}
# What is no figure of lists, but of two bundles.
_BESIDE = frozenset({"size", "latency", "misplaced"})
# What cannot be had where no item has a category.
_NEEDS_CATEGORIES = frozenset({"diversity", "miscalibration"})


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One condition: a metric, of which users or items, by which rule, against which threshold.

    `baseline` None: the rule is about the model's own figure. Set: about the model beside a baseline or the champion;
    'above' asks of the lower bound of the lead, 'at least' and 'at most' of the ratio of the two figures, and
    'not worse' has three ends (components/evaluate/comparison.py). With `slice`, a group of slices, each of it counts.
    """

    name: str
    metric: str
    rule: Rule
    threshold: Callable[[EvaluateSettings], float]
    setting: str = NEW_ITEMS
    slice: str | None = None
    baseline: str | None = None
    on_failure: Outcome = "reject"


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """The champion as the gates see it."""

    state: ChampionState = "none"
    sentence: str = "No other bundle serves."
    beside: Mapping[str, float] = field(default_factory=dict)
    """Challenger beside champion: ratios of 'size' and 'latency', how many more items are 'misplaced'."""


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """How a gate went; `value` is None where the figure is missing or does not apply."""

    name: str
    condition: str
    value: float | None
    threshold: float | None
    outcome: Outcome
    decides: bool = True
    """False: reported, and no part of the verdict (a slice with too few users to tell)."""
    note: str = ""
    users: int | None = None
    interval: Interval | None = None
    is_clocked: bool = False
    """The value comes from a clock, so that it differs from run to run."""

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    @property
    def stands_in_the_way(self) -> bool:
        return self.decides and self.outcome not in ("pass", "not applicable")


def apply_gates(
    gates: Sequence[Gate], card: Scorecard | None, settings: EvaluateSettings, opponent: Opponent
) -> tuple[GateResult, ...]:
    """One result a gate, or one a slice where a gate is about a group of them."""
    contrasts = [(gate, contrast) for gate in gates for contrast in _contrasts(gate, card, opponent)]
    told = _told_apart([contrast for _, contrast in contrasts], settings)
    results: list[GateResult] = []
    for gate in gates:
        mine = [contrast for owner, contrast in contrasts if owner is gate]
        if gate.baseline == CHAMPION and gate.rule != "comparable" and opponent.state != "comparable":
            results.append(_not_applicable(gate, settings, note=opponent.sentence))
        elif gate.rule == "comparable":
            results.append(_comparable(gate, opponent))
        elif gate.rule == "not worse" and (mine or gate.slice):
            results += [_not_worse(gate, one, told[id(one)], settings) for one in mine]
        else:
            results.append(_figure(gate, card, settings, opponent))
    return tuple(results)


def reason(result: GateResult) -> str:
    """Why a gate stands in the way, in one sentence."""
    if result.note:
        return f"{result.name}: {result.note}"
    found = "it is missing or not a number" if result.value is None else f"it is {figures.plain(result.value)}"
    return f"{result.name}: wanted {result.condition}; {found}."


def _contrasts(gate: Gate, card: Scorecard | None, opponent: Opponent) -> Sequence[Contrast]:
    if gate.rule != "not worse" or opponent.state != "comparable" or card is None or card.comparison is None:
        return ()
    if gate.slice is None:
        whole = card.comparison.whole.get(gate.metric)
        return () if whole is None else (whole,)
    return tuple(one for one in card.comparison.slices if one.group == gate.slice and one.metric == gate.metric)


def _told_apart(contrasts: Sequence[Contrast], settings: EvaluateSettings) -> dict[int, Outcome]:
    """Contrast -> 'pass', 'reject' or 'insufficient'.

    All that could show a loss are one family: the chance of a false reject in any of them is 1 - confidence at most.
    Slices that claim to have lost nothing are one family as well. Those with too few users are in neither: how many
    there are is known before anything is measured.
    """
    level = 1 - settings.confidence
    outcome: dict[int, Outcome] = {id(one): "insufficient" for one in contrasts}
    enough = [one for one in contrasts if one.users >= settings.min_users]
    slices = [one for one in enough if one.group is not None]
    whole = [one for one in enough if one.group is None]
    for one, is_shown in zip(slices, holm([one.p_not_worse for one in slices], level=level), strict=True):
        if is_shown:
            outcome[id(one)] = "pass"
    for one in whole:
        if one.p_not_worse <= level:  # each of them has to pass, so none needs a correction
            outcome[id(one)] = "pass"
    for one, is_shown in zip(enough, holm([one.p_worse for one in enough], level=level), strict=True):
        if is_shown:
            outcome[id(one)] = "reject"
    return outcome


def _not_worse(gate: Gate, contrast: Contrast, outcome: Outcome, settings: EvaluateSettings) -> GateResult:
    name = gate.name if contrast.group is None else f"{gate.name}: {contrast.name}"
    missing = not (contrast.margin == contrast.margin and contrast.difference.mean == contrast.difference.mean)
    if missing and contrast.users >= settings.min_users:
        outcome = "reject"
    found = (
        f"{figures.signed(contrast.difference.mean)} beside the champion's {figures.figure(contrast.champion)}, "
        f"between {figures.signed(contrast.difference.lower)} and {figures.signed(contrast.difference.upper)}, "
        f"{figures.count(contrast.users)} users"
    )
    notes: dict[Outcome, str] = {
        "pass": "better than the champion" if contrast.is_better else "",
        "reject": f"a loss is shown: {found}." if not missing else "a figure is missing or not a number.",
        "insufficient": (
            f"{figures.count(contrast.users)} users are too few to tell."
            if contrast.users < settings.min_users
            else f"not told apart from a loss that matters: {found}."
        ),
    }
    share = gate.threshold(settings)
    return GateResult(
        name=name,
        condition=f"{_title(gate, settings)}: less than {share:g} of the champion's lost, {settings.confidence:.0%} "
        f"bound{' (Holm)' if contrast.group else ''}",
        value=_finite(contrast.difference.mean),
        threshold=_finite(-contrast.margin),
        outcome=outcome,
        # Whether a slice can be told depends on the shop's size; that it cannot is said, and stops nothing.
        decides=contrast.group is None or outcome != "insufficient",
        note=notes[outcome],
        users=contrast.users,
        interval=contrast.difference,
    )


def _comparable(gate: Gate, opponent: Opponent) -> GateResult:
    outcome: Outcome = gate.on_failure
    if opponent.state in ("none", "same"):
        outcome = "not applicable"
    elif opponent.state == "comparable":
        outcome = "pass"
    condition = "the bundle that serves can be opened, and has not seen this hold-out"
    return GateResult(
        name=gate.name, condition=condition, value=None, threshold=None, outcome=outcome, note=opponent.sentence
    )


def _not_applicable(gate: Gate, settings: EvaluateSettings, *, note: str) -> GateResult:
    threshold = gate.threshold(settings)
    return GateResult(
        name=gate.name,
        condition=_condition(gate, threshold, settings),
        value=None,
        threshold=threshold,
        outcome="not applicable",
        note=note,
    )


def _figure(gate: Gate, card: Scorecard | None, settings: EvaluateSettings, opponent: Opponent) -> GateResult:
    """A gate that looks at one figure."""
    value = _value(gate, card, opponent)
    threshold = gate.threshold(settings)
    if value is None and gate.metric in _NEEDS_CATEGORIES and _has_no_categories(gate, card):
        return _not_applicable(gate, settings, note="no item has a category")
    passed = {
        # Written so that nan, which is neither above nor below anything, does not pass.
        "at least": value is not None and value >= threshold,
        "at most": value is not None and value <= threshold,
        "above": value is not None and value > threshold,
    }.get(gate.rule, False)
    return GateResult(
        name=gate.name,
        condition=_condition(gate, threshold, settings),
        value=value,
        threshold=threshold,
        outcome="pass" if passed else _failure(gate, card, value),
        is_clocked=gate.metric == "latency",
    )


def _failure(gate: Gate, card: Scorecard | None, value: float | None) -> Outcome:
    """How a gate that does not pass fails."""
    if value is None:
        # That a figure is missing is no question for a person.
        return "reject" if gate.on_failure == "hold" else gate.on_failure
    if gate.rule == "above" and card is not None and gate.baseline is not None:
        # A lead that might be chance is not shown, and neither is a loss: it does not ship, and more users would tell.
        lead = card.settings[gate.setting].differences[gate.baseline][gate.metric]
        return "insufficient" if lead.mean > 0 else "reject"
    return gate.on_failure


def _value(gate: Gate, card: Scorecard | None, opponent: Opponent) -> float | None:
    """The figure that the gate looks at; None where it is missing or no number."""
    result = card.settings.get(gate.setting) if card else None
    if card is None or result is None:
        return None
    if gate.metric == "users":
        return float(result.users)
    if gate.metric == "fallback_share":
        return _finite(card.fallback_share)
    if gate.metric in _BESIDE:
        return _finite(opponent.beside.get(gate.metric))
    model = _of(result.standings.get(MODEL), gate.metric)
    if gate.baseline is None:
        return model
    name = result.best_baseline if gate.baseline == BEST_BASELINE else gate.baseline
    if gate.rule == "above":
        difference = result.differences.get(name, {}).get(gate.metric)
        return _finite(difference.lower) if difference else None
    other = _of(result.standings.get(name), gate.metric)
    if model is None or other is None:
        return None
    if other == 0:
        return 1.0 if model == 0 else float("inf")
    return model / other


def _of(standing: Standing | None, metric: str) -> float | None:
    if standing is None:
        return None
    figure = standing.metrics.get(metric) or getattr(standing, metric, None)
    return _finite(figure.mean if isinstance(figure, Interval) else figure)


def _has_no_categories(gate: Gate, card: Scorecard | None) -> bool:
    result = card.settings.get(gate.setting) if card else None
    if result is None or card is None or not card.has_no_categories:
        return False
    return all(_of(result.standings.get(name), gate.metric) is None for name in (MODEL, CHAMPION))


def _condition(gate: Gate, threshold: float, settings: EvaluateSettings) -> str:
    title = _title(gate, settings)
    if gate.rule == "not worse":
        return f"{title}: less than {threshold:g} of the champion's lost"
    if gate.rule == "above":
        return f"lead over {gate.baseline} in {title}, lower {settings.confidence:.0%} bound: above {threshold:g}"
    by = "above" if gate.metric == "misplaced" else "over"  # a difference, or a ratio
    beside = f" {by} the {gate.baseline}'s" if gate.baseline else ""
    return f"{title}{beside}: {gate.rule} {threshold:g}"


def _title(gate: Gate, settings: EvaluateSettings) -> str:
    return _TITLES.get(gate.metric, gate.metric).format(k=settings.cutoff_k)


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) != float("inf") and value == value else None
