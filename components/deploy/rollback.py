"""Taking a bundle back: the pointer moves, every worker follows within its poll, the bundle is barred.

The pointer moves first of all, before anything that may be slow or away (the registry, a report).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from components.core.artifact import Artifact, ArtifactRef
from components.core.clock import wall_clock
from components.core.errors import ArtifactError, BasketweaveError, StopError
from components.core.live import move_pointer_back, read_pointer
from components.core.presence import live_workers, sweep_dead
from components.core.rollout import (
    Rollout,
    bar,
    end_rollout,
    read_barred,
    read_rollout,
    unbar,
    withdraw_candidate,
)
from components.core.settings import Settings
from components.core.store import Store
from components.deploy.rollout_record import Outcome, publish_outcome, read_record, write_record

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did."""

    bundle: ArtifactRef
    """What serves from now on."""
    barred: tuple[str, ...]
    ended_rollout: str | None
    moved: bool
    """False where the pointer named the bundle already: only a challenger was sent away."""
    moved_at: float
    """Moment of the move, by time.monotonic()."""


class RolloutOverError(BasketweaveError):
    """The rollout has ended, by a look or by a person; nothing of it is left to do."""


def roll_back(
    settings: Settings, *, to: str | None = None, reason: str, run_id: str, only: str | None = None
) -> RolledBack:
    """Go back to the bundle before, or to the registered bundle whose hash begins with `to`; end a running rollout.

    While a challenger is in shadow or canary the champion serves, so without `to` only the challenger goes. What is
    taken back is barred. `only` names the rollout that is meant: RolloutOverError where another runs, or none.
    Raises StopError where there is nothing to go back to.
    """
    store = Store(settings.artifact_root)
    with store.lock("deploy", doing="deploying or rolling back", timeout_seconds=30):
        pointer = read_pointer(store)
        if pointer is None:
            raise StopError("Nothing is deployed, so there is nothing to go back to.")
        rollout = _running(store)
        if only is not None and (rollout is None or rollout.id != only):
            raise RolloutOverError(f"rollout {only} is over already")
        target = _target(settings, store, to, rollout)
        taken_back = {rollout.challenger.sha256} if rollout is not None else set()
        if target.sha256 != pointer.bundle.sha256:
            taken_back.add(pointer.bundle.sha256)
        taken_back.discard(target.sha256)
        # Checked while the present bundle still serves: going back to what is damaged would be a move to nothing.
        Artifact.open(store, target.uri, sha256=target.sha256, kind="bundle").verify()
        if target.sha256 in read_barred(store):
            unbar(store, target.sha256)  # a person named it
        for sha256 in taken_back:
            bar(store, sha256, reason=reason, rollout=rollout.id if rollout else None)
        must_move = target.sha256 != pointer.bundle.sha256
        moved_at = time.monotonic()
        if must_move:
            move_pointer_back(store, target, without=set(read_barred(store)), run_id=run_id)
        end_rollout(store)
        for sha256 in taken_back:
            withdraw_candidate(store, sha256)
        if rollout is not None:
            outcome: Outcome = "rolled back" if must_move else "aborted"
            _note_end(store, rollout.id, outcome=outcome, reason=reason)
            publish_outcome(settings, outcome)
    return RolledBack(
        bundle=target,
        barred=tuple(sorted(taken_back)),
        ended_rollout=rollout.id if rollout else None,
        moved=must_move,
        moved_at=moved_at,
    )


def restore_registry(settings: Settings, done: RolledBack) -> None:
    """Let the registry's aliases follow a rollback."""
    from components.deploy.registry import Registry

    pointer = read_pointer(Store(settings.artifact_root))
    registry = Registry(settings)
    for sha256 in done.barred:
        registry.stand_down(sha256)
    if pointer is not None and done.moved:
        previous = pointer.previous.sha256 if pointer.previous else None
        registry.restore(pointer.bundle.sha256, previous=previous)


def wait_for_workers(settings: Settings, done: RolledBack, *, timeout_seconds: float) -> tuple[int, float]:
    """Wait until every live worker of the service, on whatever machine, answers with the bundle and has no challenger.

    Returns (workers, seconds since the pointer moved). Raises StopError when the time is up.
    """
    store = Store(settings.artifact_root)
    sweep_dead(store, now=wall_clock())
    while True:
        workers = live_workers(store, now=wall_clock())
        late = [one for one in workers if one.bundle != done.bundle.sha256 or one.rollout is not None]
        seconds = time.monotonic() - done.moved_at
        if not late:
            return len(workers), seconds
        if seconds > timeout_seconds:
            raise StopError(
                f"{len(late)} of {len(workers)} workers do not answer with bundle {done.bundle.sha256[:12]} after "
                f"{seconds:.0f} s. The pointer has moved; look into the service's log."
            )
        time.sleep(POLL_SECONDS)


def _target(settings: Settings, store: Store, to: str | None, rollout: Rollout | None) -> ArtifactRef:
    pointer = read_pointer(store)
    assert pointer is not None
    if to is not None:
        known = [pointer.bundle, pointer.previous, *pointer.earlier]
        found = [ref for ref in known if ref is not None and ref.sha256.startswith(to)]
        from components.deploy.registry import Registry  # MLflow takes seconds to load, which are seconds too late

        return found[0] if len(found) == 1 else Registry(settings).bundle(to, store)
    if rollout is not None:
        return rollout.champion
    barred = read_barred(store)
    before = [ref for ref in (pointer.previous, *pointer.earlier) if ref is not None and ref.sha256 not in barred]
    if not before:
        raise StopError("Nothing served before the present bundle. Name a registered one by --to HASH.")
    return before[0]


def _running(store: Store) -> Rollout | None:
    """The running rollout; one that cannot be read is ended all the same, and nothing is known of it."""
    try:
        return read_rollout(store)
    except ArtifactError:
        return None


def _note_end(store: Store, rollout_id: str, *, outcome: Outcome, reason: str) -> None:
    try:
        record = read_record(store, rollout_id)
    except ArtifactError:
        return  # its end does not depend on its story
    write_record(store, record.ended(wall_clock(), outcome, reason))
