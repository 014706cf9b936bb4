"""What a look at a running rollout says: wait, go on, or abort, with the numbers. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.core.observations import ArmCounts, Observations, StageCounts, cluster_rows
from components.core.rollout import Rollout, Stage, step_name
from components.core.sections import RolloutSettings
from components.measures.sequential import compare_rates, exceeds

# The guards below are looked at in every stage beside the clicks: each may raise a false alarm this rarely.
GUARD_ALPHA = 0.001
# A p99 of fewer requests than this is the slowest of them.
MIN_TIMED = 200

Decision = Literal["wait", "go on", "abort", "too little"]


class Finding(BaseModel):
    """One measure of the challenger beside the arm that it is compared with."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    name: str
    challenger: float | None
    reference: float | None
    limit: float | None
    is_broken: bool
    lower: float | None = None
    upper: float | None = None
    """Confidence sequence of the difference."""


class Look(BaseModel):
    """What was seen and decided at one moment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    step: str
    decision: Decision
    reason: str
    requests: dict[str, int]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the plan."""

    stage: Stage
    share: float

    @property
    def step(self) -> str:
        return step_name(self.stage, self.share)


def plan(settings: RolloutSettings) -> Sequence[PlannedStage]:
    """The stages in their order; 'watch' comes after the move to production, and only where it is asked for."""
    stages = [PlannedStage("shadow", 0.0), *(PlannedStage("canary", share) for share in settings.shares)]
    return [*stages, PlannedStage("watch", settings.watch_share)] if settings.watch_seconds else stages


def judge(rollout: Rollout, seen: Observations, settings: RolloutSettings, *, now: datetime) -> Look:
    """Look at what the workers have counted so far. A broken measure aborts at once, whatever else is missing."""
    counts = seen.step(rollout.step)
    reference_name = "champion" if rollout.stage == "shadow" else "control"
    challenger, reference = counts.arm("challenger"), counts.arm(reference_name)
    findings = _guards(challenger, reference, settings)
    if rollout.stage == "shadow":
        findings.append(_overlap(counts, settings))
    else:
        findings.append(_clicks(seen, settings))
    requests = {"challenger": challenger.requests, reference_name: reference.requests}
    decision, reason = _decide(rollout, seen, findings, requests, settings, now=now)
    return Look(
        at=now, step=rollout.step, decision=decision, reason=reason, requests=requests, findings=tuple(findings)
    )


def _decide(
    rollout: Rollout,
    seen: Observations,
    findings: Sequence[Finding],
    requests: dict[str, int],
    settings: RolloutSettings,
    *,
    now: datetime,
) -> tuple[Decision, str]:
    if seen.refusals:
        _, refusal = min(seen.refusals.items())
        return "abort", f"{len(seen.refusals)} of {seen.workers} workers cannot load it: {refusal}"
    if broken := [finding for finding in findings if finding.is_broken]:
        return "abort", "; ".join(map(sentence, broken))
    seconds = (now - rollout.stage_started_at).total_seconds()
    least = {
        "shadow": (settings.shadow_requests, settings.shadow_seconds),
        "canary": (settings.stage_requests, settings.stage_seconds),
        "watch": (0, settings.watch_seconds),
    }
    least_requests, least_seconds = least[rollout.stage]
    fewest = min(requests.values())
    if seconds >= least_seconds and fewest >= least_requests:
        return "go on", f"{fewest} requests an arm in {seconds:.0f} s, nothing broken"
    if seconds >= settings.stage_timeout_seconds:
        return "too little", f"{fewest} of {least_requests} requests an arm in {seconds:.0f} s"
    return "wait", f"{fewest} of {least_requests} requests an arm, {seconds:.0f} of {least_seconds:.0f} s"


def sentence(finding: Finding) -> str:
    """A broken finding in words."""
    if finding.name == "click-through":
        interval = f"[{_text(finding.lower)}, {_text(finding.upper)}]"
        return (
            f"click-through {_text(finding.challenger)} against {_text(finding.reference)}, "
            f"difference {interval} below {_text(finding.limit)}"
        )
    beside = f" against {_text(finding.reference)}" if finding.reference is not None else ""
    return f"{finding.name} {_text(finding.challenger)}{beside}, limit {_text(finding.limit)}"


def _guards(challenger: ArmCounts, reference: ArmCounts, settings: RolloutSettings) -> list[Finding]:
    findings = []
    for name, events, others, allowed, is_relative in (
        ("error share", challenger.errors, reference.errors, settings.max_error_share, False),
        ("empty share", challenger.empty, reference.empty, settings.max_empty_increase, True),
        ("fallback share", challenger.fallbacks, reference.fallbacks, settings.max_fallback_increase, True),
    ):
        limit = allowed + (_upper(others, reference.requests) if is_relative else 0.0)
        findings.append(
            Finding(
                name=name,
                challenger=_share(events, challenger.requests),
                reference=_share(others, reference.requests),
                limit=limit,
                is_broken=exceeds(events, challenger.requests, limit=limit, alpha=GUARD_ALPHA),
            )
        )
    return [*findings, _slowness(challenger, reference, settings)]


def _slowness(challenger: ArmCounts, reference: ArmCounts, settings: RolloutSettings) -> Finding:
    """p99 beside p99: broken where surely more than one in a hundred is slower than so many times the other's p99."""
    other = reference.quantile_seconds(0.99)
    limit = max(settings.max_p99_ratio * other, settings.p99_floor_seconds) if math.isfinite(other) else math.nan
    is_timed = min(challenger.timed, reference.timed) >= MIN_TIMED
    return Finding(
        name="p99 seconds",
        challenger=_finite(challenger.quantile_seconds(0.99)),
        reference=_finite(other),
        limit=_finite(limit),
        is_broken=is_timed and exceeds(challenger.slower_than(limit), challenger.timed, limit=0.01, alpha=GUARD_ALPHA),
    )


def _overlap(counts: StageCounts, settings: RolloutSettings) -> Finding:
    overlap = counts.overlap
    return Finding(
        name="overlap of lists",
        challenger=_finite(overlap),
        reference=None,
        limit=settings.min_overlap,
        is_broken=counts.shadowed >= MIN_TIMED and not overlap >= settings.min_overlap,
    )


def _clicks(seen: Observations, settings: RolloutSettings) -> Finding:
    """Clicks a list, or a place seen where clients report those; over all stages so far: arms only grow."""
    counts = seen.together(stage.step for stage in plan(settings) if stage.stage != "shadow")
    arms = [cluster_rows(counts.arm(name)) for name in ("challenger", "control")]
    of_impressions = any(sum(impressions) for _, impressions, _ in arms)
    first, second = (((rows[1] if of_impressions else rows[0]), rows[2]) for rows in arms)
    found = compare_rates(first, second, alpha=settings.alpha, relative_effect=settings.click_effect)
    limit = -settings.click_drop * found.second if math.isfinite(found.second) else -settings.click_drop
    is_enough = sum(first[1]) + sum(second[1]) >= settings.min_clicks
    return Finding(
        name="click-through",
        challenger=_finite(found.first),
        reference=_finite(found.second),
        limit=limit,
        is_broken=is_enough and found.upper < limit,
        lower=_finite(found.lower),
        upper=_finite(found.upper),
    )


def _share(events: int, trials: int) -> float | None:
    return events / trials if trials else None


def _upper(events: int, trials: int) -> float:
    """An upper bound of the other arm's share, so that its own few requests do not condemn the challenger."""
    return (events + 3.0 * math.sqrt(events + 1)) / trials if trials else 1.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
