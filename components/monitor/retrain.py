"""When drift may ask for a retrain: by a cool-down and a weekly budget, kept in the artifact store.

Time is the run's `as_of`, never the wall clock, and the past and the future count alike: a clock that jumps back and
forth neither frees the budget nor locks it for good. The state is one small file, written whole under a lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.errors import ArtifactError
from components.core.sections import MonitorSettings
from components.core.store import Store

STATE = "monitor/retrain.json"
WEEK = timedelta(days=7)
KEPT_REQUESTS = 200


class Request(BaseModel):
    """One retrain that drift asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: datetime
    bundle: str
    """Content hash of the bundle that had drifted."""
    why: str
    run_id: str


class Decision(BaseModel):
    """Whether a retrain is asked for, and why or why not, in one sentence."""

    model_config = ConfigDict(frozen=True)

    asked: bool
    why: str


def decide(
    store: Store, statistics: Mapping[str, Any], *, as_of: datetime, run_id: str, settings: MonitorSettings
) -> Decision:
    """Ask for a retrain if the monitoring says drift and the bounds leave room; a request is written down.

    Args:
        statistics: of a monitoring artifact: verdict, why, bundle, alarmed_in_a_row.

    Called again for the same run it gives the same answer: a task that was killed after it had asked asks again.
    """
    if not settings.retrain:
        return Decision(asked=False, why="monitor.retrain is off")
    if statistics["verdict"] != "drift":
        return Decision(asked=False, why=f"the newest window is {statistics['verdict']}")
    in_a_row = statistics["alarmed_in_a_row"]
    if in_a_row < settings.retrain_after_windows:
        return Decision(
            asked=False, why=f"{in_a_row} of {settings.retrain_after_windows} windows in a row have alarmed"
        )
    with store.lock("monitor-retrain", doing="asking for a retrain", timeout_seconds=60):
        requests = read_requests(store)
        if any(request.run_id == run_id for request in requests):
            return Decision(asked=True, why=statistics["why"])
        refusal = _refusal(requests, as_of=as_of, settings=settings)
        if refusal is not None:
            return Decision(asked=False, why=refusal)
        asked = Request(as_of=as_of, bundle=statistics["bundle"], why=statistics["why"], run_id=run_id)
        kept = [*requests, asked][-KEPT_REQUESTS:]
        store.write_json(STATE, [request.model_dump(mode="json") for request in kept])
    return Decision(asked=True, why=statistics["why"])


def read_requests(store: Store) -> Sequence[Request]:
    """Retrains asked for, in the order in which they were."""
    if not store.exists(STATE):
        return []
    try:
        return [Request.model_validate(one) for one in store.read_json(STATE)]
    except (TypeError, ValueError, ValidationError) as error:
        # Without it the budget is unknown, and a retrain too many costs more than one too few.
        raise ArtifactError(
            f"{store.uri(STATE)} cannot be read. Delete it: drift may then ask for a retrain at once."
        ) from error


def _refusal(requests: Sequence[Request], *, as_of: datetime, settings: MonitorSettings) -> str | None:
    def within(span: timedelta) -> list[Request]:
        return [request for request in requests if abs(as_of - request.as_of) < span]

    if last := within(timedelta(days=settings.retrain_cooldown_days)):
        return (
            f"the last retrain was asked for as of {last[-1].as_of:%Y-%m-%d %H:%M}, "
            f"less than {settings.retrain_cooldown_days:g} days away"
        )
    if len(within(WEEK)) >= settings.retrain_weekly_budget:
        return f"the budget of {settings.retrain_weekly_budget} retrains in seven days is spent"
    return None
