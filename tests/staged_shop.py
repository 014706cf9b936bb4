"""A shop with a champion and a waiting challenger, and a stand-in for the service that only counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from text_bundles import bundle_and_evaluation, deploy

from components.core.artifact import Manifest
from components.core.observations import StageCounts, WorkerObservations, cell_of, write_observations
from components.core.rollout import CLUSTERS, read_rollout
from components.core.settings import Settings
from components.core.store import Store

# A rollout that a test can sit through; each test changes what it is about.
SHORT: Mapping[str, Any] = {
    "shares": (0.1, 0.5),
    "shadow_requests": 10,
    "shadow_seconds": 0,
    "stage_requests": 10,
    "stage_seconds": 0,
    "watch_seconds": 0.01,
    "poll_seconds": 0.1,
}


def staged(settings: Settings, **rollout: Any) -> Settings:
    """The same shop with staged rollouts."""
    deploy_settings = settings.deploy.model_copy(update={"rollout": "staged"})
    rollout_settings = type(settings.rollout)(**{**SHORT, **rollout})
    return settings.model_copy(update={"deploy": deploy_settings, "rollout": rollout_settings})


def champion_and_challenger(settings: Settings) -> tuple[Manifest, Manifest]:
    """Bundle 'a' is deployed, bundle 'b' offered."""
    first, second = bundle_and_evaluation(settings, "a"), bundle_and_evaluation(settings, "b")
    deploy(settings, *first, "run-a")
    deploy(settings, *second, "run-b")
    return first[0], second[0]


def counted(
    *, requests: int, errors: int = 0, empty: int = 0, fallbacks: int = 0, clicks: int = 0, seconds: float = 0.01
) -> dict[str, Any]:
    """An arm's counters, its lists and clicks spread evenly over the groups of users."""
    clusters = {
        group: (
            requests // CLUSTERS + (group < requests % CLUSTERS),
            0,
            clicks // CLUSTERS + (group < clicks % CLUSTERS),
        )
        for group in range(CLUSTERS)
    }
    return {
        "requests": requests,
        "errors": errors,
        "empty": empty,
        "fallbacks": fallbacks,
        "clicks": clicks,
        "seconds": {cell_of(seconds): requests},
        "clusters": clusters,
    }


def observe(settings: Settings, step: str, arms: Mapping[str, dict[str, Any]], *, worker: str = "w1") -> None:
    """As a worker would: these are its counters of the stage."""
    store = Store(settings.artifact_root)
    rollout = read_rollout(store)
    if rollout is None:
        return
    path = f"deploy/observations/{rollout.id}/{worker}.json"
    seen = WorkerObservations(worker=worker, holds_challenger=True)
    if store.exists(path):
        seen = WorkerObservations.model_validate(store.read_json(path))
    counts = StageCounts.model_validate({"arms": arms, "shadowed": 10, "overlap_sum": 5.0})
    write_observations(store, rollout.id, seen.model_copy(update={"steps": {**seen.steps, step: counts}}))
