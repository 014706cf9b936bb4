"""Settings of what is watched once a bundle serves, and of when a drift may ask for a retrain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from components.core.sections.base import Section


class MonitorSettings(Section):
    """Drift of the log, the graph, the bundle and the feature store against what the live bundle was trained on."""

    schedule: str | None = "@hourly"
    """Cron expression or preset of the DAG `monitoring`, which runs after each run of `recommender` as well; None: only
    then, and when asked."""
    quiet_windows: int = Field(default=28, ge=14)
    """How many of the last quiet windows (whole days) limits are learnt from."""
    min_windows: int = Field(default=14, ge=10)
    """With fewer quiet windows than this only the bounds by hand alarm."""
    false_alarm_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Share of quiet windows that may alarm, all measures together. Real logs are less even than the theory behind
    limits, so it stands below what is wanted: see `make bench-drift`."""
    bounds: Mapping[str, float] = {}
    """Upper bounds by hand, by measure, in place of the declared ones: an alarm whatever quiet windows were like."""
    max_windows: int = Field(default=90, ge=30)
    """How many days back from now are judged; those before the bundle's cutoff never are."""
    retrain: bool = True
    """Whether drift asks for a run of `recommender`."""
    retrain_after_windows: int = Field(default=1, ge=1)
    """The newest window must alarm, and so many of the windows up to it in a row, before a retrain is asked for."""
    retrain_cooldown_days: float = Field(default=2, ge=0)
    """After a retrain was asked for, no other is for this long. Judged by `as_of`, never by the wall clock."""
    retrain_weekly_budget: int = Field(default=2, ge=0)
    """Retrains that drift may ask for within seven days."""
    sampled_users: int = Field(default=100, ge=1)
    """Users whose lists and online features are looked at in a run."""
    evidently: Literal["drift", "always", "never"] = "drift"
    """When Evidently writes its report of the newest week, which is some seconds' work: where something alarms, at
    every run, never. Our own page, drift.html, is always there."""
