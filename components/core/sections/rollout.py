"""Settings of how a challenger proves itself on live requests."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from components.core.sections.base import Section, Share

CanaryShare = Annotated[float, Field(gt=0, le=0.5)]


class RolloutSettings(Section):
    """Stages of a rollout, and what ends it. Used where deploy.rollout is 'staged'."""

    shares: tuple[CanaryShare, ...] = Field(default=(0.01, 0.1, 0.5), min_length=1)
    """Share of users who get the challenger, stage by stage; as many others are the control group."""
    shadow_requests: int = Field(default=1000, ge=1)
    """Requests that the challenger must have answered unseen."""
    shadow_seconds: float = Field(default=900, ge=0)
    """Least time that the challenger answers unseen."""
    stage_requests: int = Field(default=1000, ge=1)
    """Requests that each arm must have answered in a canary stage."""
    stage_seconds: float = Field(default=3600, ge=0)
    """Least time of a canary stage."""
    stage_timeout_seconds: float = Field(default=7 * 86_400, gt=0)
    """A stage that has not seen enough by then ends the rollout; the challenger is not barred."""
    watch_seconds: float = Field(default=3600, ge=0)
    """How long after production the same tests go on and roll back by themselves; 0: not at all."""
    watch_share: CanaryShare = 0.1
    """Share of users who stay on the old bundle meanwhile, to compare with."""
    poll_seconds: float = Field(default=60, gt=0)
    """How often the DAG looks at what the service has seen. No fewer than 10 under Airflow's scheduler, which takes a
    task for lost, and tries it again, that is due before it was told that the last look has ended."""
    observe_seconds: float = Field(default=2, gt=0)
    """How often a worker of the service writes what it has seen, while a rollout runs."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance that a challenger that is no worse is ever rolled back by its clicks, however often they are looked at."""
    click_drop: Share = 0.0
    """Drop of the click-through rate, as a share of the control group's, that is put up with."""
    click_effect: float = Field(default=0.1, gt=0)
    """Relative change of the click-through rate that the test finds soonest."""
    min_clicks: int = Field(default=30, ge=1)
    """Clicks in both arms together before they are compared."""
    max_error_share: Share = 0.001
    """Share of requests in which the challenger may raise."""
    max_empty_increase: Share = 0.01
    """How much larger than the control's the challenger's share of empty lists may be."""
    max_fallback_increase: Share = 0.02
    """How much larger than the control's the challenger's share of lists without the user's history may be."""
    max_p99_ratio: float = Field(default=2.0, ge=1)
    """The challenger's p99 may be this many times the control's."""
    p99_floor_seconds: float = Field(default=0.02, ge=0)
    """A p99 below this is never too slow."""
    min_overlap: Share = 0.0
    """Mean share of a list that champion and challenger must have in common in the stage 'shadow'."""
    approval: bool = False
    """Ask a person before production (Airflow's page, 'Required actions')."""

    @field_validator("shares")
    @classmethod
    def _shares_grow(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(after <= before for before, after in pairwise(shares)):
            raise ValueError(f"the shares of a rollout must grow, such as 0.01, 0.1, 0.5; {shares} do not")
        return shares
