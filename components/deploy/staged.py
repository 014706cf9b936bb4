"""A rollout's moves, each safe to make again: offer, begin, enter a stage, look, promote, finish, abort.

All state is in the store, so a task that is killed between two of them goes on where it was, on whatever machine.
"""

from __future__ import annotations

import logging
import secrets

from components.core.artifact import Artifact, Manifest
from components.core.clock import wall_clock
from components.core.errors import StopError
from components.core.live import move_pointer, read_pointer
from components.core.observations import read_observations
from components.core.presence import sweep_dead
from components.core.rollout import (
    Candidate,
    Rollout,
    barred_sentence,
    end_rollout,
    read_candidate,
    read_rollout,
    withdraw_candidate,
    write_candidate,
    write_rollout,
)
from components.core.settings import Settings
from components.core.store import Store
from components.deploy.decision import Look, judge, plan
from components.deploy.registry import Registry
from components.deploy.rollback import RolloutOverError, restore_registry, roll_back
from components.deploy.rollout_record import Outcome, RolloutRecord, publish_outcome, read_record, write_record

logger = logging.getLogger(__name__)

LOCK_SECONDS = 60.0


def offer(settings: Settings, bundle: Manifest, evaluation: Manifest, *, run_id: str) -> str:
    """Register a promoted bundle as the challenger and let it wait for its rollout; returns its version."""
    registry = Registry(settings)
    version = registry.register(bundle, evaluation=evaluation)
    registry.challenge(bundle.content_sha256)
    candidate = Candidate(
        bundle=bundle.ref(), evaluation=evaluation.ref(), version=version, run_id=run_id, offered_at=wall_clock()
    )
    write_candidate(Store(settings.artifact_root), candidate)
    return version


def begin(settings: Settings) -> tuple[str | None, str]:
    """Begin the waiting bundle's rollout, or go on with the one that runs: (its id, one sentence); None: nothing."""
    store = Store(settings.artifact_root)
    with store.lock("deploy", doing="deploying", timeout_seconds=LOCK_SECONDS):
        if (running := read_rollout(store)) is not None:
            return running.id, f"rollout {running.id} goes on in stage {running.step}"
        candidate, pointer = read_candidate(store), read_pointer(store)
        if candidate is None or pointer is None:
            return None, "no challenger waits for a rollout"
        bundle = candidate.bundle
        if (barred := barred_sentence(store, bundle.sha256)) is not None:
            withdraw_candidate(store, bundle.sha256)
            return None, barred
        if bundle.sha256 == pointer.bundle.sha256:
            withdraw_candidate(store, bundle.sha256)
            return None, f"bundle {bundle.sha256[:12]} serves already"
        Artifact.open(store, bundle.uri, sha256=bundle.sha256, kind="bundle").verify()
        sweep_dead(store, now=wall_clock())
        now = wall_clock()
        rollout = Rollout(
            id=f"{now:%Y%m%dT%H%M%S}-{bundle.sha256[:12]}",
            challenger=bundle,
            champion=pointer.bundle,
            stage="shadow",
            salt=secrets.token_hex(16),
            started_at=now,
            stage_started_at=now,
            run_id=candidate.run_id,
        )
        record = RolloutRecord(
            id=rollout.id,
            challenger=bundle,
            champion=pointer.bundle,
            version=candidate.version,
            run_id=candidate.run_id,
            started_at=now,
        )
        write_record(store, record.happened(now, "shadow begins: the challenger answers unseen"))
        write_rollout(store, rollout)
        publish_outcome(settings, "running")
    return rollout.id, f"rollout {rollout.id}: {bundle.sha256[:12]} beside {pointer.bundle.sha256[:12]}"


def enter(settings: Settings, rollout_id: str, stage: int) -> None:
    """Be in stage number `stage` of the plan, or in a later one. RolloutOverError where the rollout has ended."""
    store = Store(settings.artifact_root)
    with store.lock("deploy", doing="deploying", timeout_seconds=LOCK_SECONDS):
        rollout = _running(store, rollout_id)
        if _place(rollout, settings) >= stage:
            return
        planned = plan(settings.rollout)[stage]
        now = wall_clock()
        record = read_record(store, rollout_id)
        write_record(store, record.happened(now, f"{planned.step} begins"))
        update = {"stage": planned.stage, "share": planned.share, "stage_started_at": now}
        write_rollout(store, rollout.model_copy(update=update))


def is_past(settings: Settings, rollout_id: str, stage: int) -> bool:
    """Whether the rollout is in a later stage than this: what a task that runs again has left to do is nothing."""
    return _place(_running(Store(settings.artifact_root), rollout_id), settings) > stage


def look(settings: Settings, rollout_id: str) -> Look:
    """Judge what was seen so far, keep it, and abort where it says so. Raises RolloutOverError where it has ended."""
    store = Store(settings.artifact_root)
    rollout = _running(store, rollout_id)
    found = judge(rollout, read_observations(store, rollout_id), settings.rollout, now=wall_clock())
    write_record(store, read_record(store, rollout_id).looked(found))
    if found.decision == "abort":
        abort(settings, rollout, f"{found.step}: {found.reason}")
    elif found.decision == "too little":
        leave(settings, rollout, f"{found.step}: too little to judge, {found.reason}")
    return found


def abort(settings: Settings, rollout: Rollout, reason: str) -> None:
    """The challenger goes, the champion serves everybody again, and the challenger's hash is barred."""
    done = roll_back(settings, reason=reason, run_id=rollout.run_id, only=rollout.id)
    try:
        restore_registry(settings, done)
    except Exception:
        # The old bundle serves; that the registry is away must not look as if it did not.
        logger.exception("The registry's aliases do not follow the rollback. Set them by hand.")


def refuse(settings: Settings, rollout_id: str) -> str:
    """A person does not want the challenger in production: it goes, and is barred. Returns one sentence."""
    rollout = _running(Store(settings.artifact_root), rollout_id)
    abort(settings, rollout, "it was not approved for production")
    return f"bundle {rollout.challenger.sha256[:12]} was not approved, and goes"


def leave(settings: Settings, rollout: Rollout, reason: str) -> None:
    """End a rollout that found nothing wrong and not enough right. In 'watch' the challenger stays in production."""
    store = Store(settings.artifact_root)
    with store.lock("deploy", doing="deploying", timeout_seconds=LOCK_SECONDS):
        _running(store, rollout.id)
        outcome: Outcome = "promoted" if rollout.stage == "watch" else "ended"
        end_rollout(store)
        withdraw_candidate(store, rollout.challenger.sha256)
        write_record(store, read_record(store, rollout.id).ended(wall_clock(), outcome, reason))
        publish_outcome(settings, outcome)
    if outcome == "ended":
        Registry(settings).stand_down(rollout.challenger.sha256)


def promote(settings: Settings, rollout_id: str) -> str:
    """Move the pointer to the challenger and crown it; from here on it is watched. Returns one sentence."""
    store = Store(settings.artifact_root)
    with store.lock("deploy", doing="deploying", timeout_seconds=LOCK_SECONDS):
        rollout = _running(store, rollout_id)
        challenger = rollout.challenger
        if (barred := barred_sentence(store, challenger.sha256)) is not None:
            raise StopError(barred)
        Artifact.open(store, challenger.uri, sha256=challenger.sha256, kind="bundle").verify()
        stages = plan(settings.rollout)
        now = wall_clock()
        pointer = read_pointer(store)
        if pointer is None or pointer.bundle.sha256 != challenger.sha256:
            if stages[-1].stage == "watch":
                # The control group first, so that nobody of it gets the challenger for a poll's time.
                update = {"stage": "watch", "share": stages[-1].share, "stage_started_at": now}
                write_rollout(store, rollout.model_copy(update=update))
            move_pointer(store, challenger, previous=rollout.champion, run_id=rollout.run_id)
            write_record(store, read_record(store, rollout_id).happened(now, "production: the pointer has moved"))
        withdraw_candidate(store, challenger.sha256)
        if stages[-1].stage != "watch":
            end_rollout(store)
            _promoted(settings, store, rollout_id, "in production, not watched")
    Registry(settings).crown(challenger.sha256)
    return f"bundle {challenger.sha256[:12]} is in production"


def finish(settings: Settings, rollout_id: str, reason: str) -> None:
    """The watch is over: the challenger is the champion, and nobody is kept on the old bundle."""
    store = Store(settings.artifact_root)
    with store.lock("deploy", doing="deploying", timeout_seconds=LOCK_SECONDS):
        _running(store, rollout_id)
        end_rollout(store)
        _promoted(settings, store, rollout_id, reason)


def _promoted(settings: Settings, store: Store, rollout_id: str, reason: str) -> None:
    write_record(store, read_record(store, rollout_id).ended(wall_clock(), "promoted", reason))
    publish_outcome(settings, "promoted")


def _running(store: Store, rollout_id: str) -> Rollout:
    rollout = read_rollout(store)
    if rollout is None or rollout.id != rollout_id:
        record = read_record(store, rollout_id)
        raise RolloutOverError(
            f"rollout {rollout_id} is over: {record.outcome}, {record.reason or 'no reason was kept'}"
        )
    if (barred := barred_sentence(store, rollout.challenger.sha256)) is not None:
        raise RolloutOverError(f"rollout {rollout_id} is over: {barred}")
    return rollout


def _place(rollout: Rollout, settings: Settings) -> int:
    """Number of the rollout's stage in the plan; where the settings have changed since, the first one."""
    steps = [planned.step for planned in plan(settings.rollout)]
    return steps.index(rollout.step) if rollout.step in steps else 0
