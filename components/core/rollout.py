"""A challenger on its way to production: who answers whom, and which bundles a schedule may not promote.

`deploy/rollout.json` is there while a challenger proves itself on live requests. The rollout DAG writes it and every
worker of the service polls it, as it polls the deploy pointer:

    stage     pointer names   arm 'challenger' gets   arm 'control' gets   everybody else gets
    shadow    champion        (nobody is in it)                            champion; challenger unseen
    canary    champion        challenger              champion             champion
    watch     challenger      challenger              the champion before  challenger

An arm is a range of a user's salted hash. It grows with the share and never shrinks, so that who once got the
challenger gets it until the rollout ends, and the control group is always as large and never the same people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.artifact import ArtifactRef
from components.core.clock import wall_clock
from components.core.errors import ArtifactError, StopError
from components.core.store import Store

ROLLOUT = "deploy/rollout.json"
CANDIDATE = "deploy/candidate.json"
BARRED = "deploy/barred.json"

Stage = Literal["shadow", "canary", "watch"]
Arm = Literal["challenger", "control", "champion"]

CLUSTERS = 64
"""Groups of users by hash over which an arm's clicks are counted: enough to see how much people differ, and no user."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


R = TypeVar("R", bound=_Record)


class Rollout(_Record):
    """The rollout that runs."""

    id: str
    challenger: ArtifactRef
    champion: ArtifactRef
    """What the challenger is compared with; what the service goes back to."""
    stage: Stage
    share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of users in the challenger's arm, and of those in the control's."""
    salt: str = Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")
    started_at: datetime
    stage_started_at: datetime
    run_id: str

    @property
    def step(self) -> str:
        """Name of this stage with its share, such as 'canary-10': what observations are kept by."""
        return step_name(self.stage, self.share)

    @cached_property
    def _salt(self) -> bytes:
        return self.salt.encode()


class Candidate(_Record):
    """A bundle that the gate has promoted and that waits for its rollout."""

    bundle: ArtifactRef
    evaluation: ArtifactRef
    version: str
    """Its version in the registry."""
    run_id: str
    offered_at: datetime


class Bar(_Record):
    """Why the schedule may not promote a bundle."""

    reason: str
    at: datetime
    rollout: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a user stands in a rollout."""

    arm: Arm
    cluster: int
    """Group of users, below CLUSTERS; independent of the arm."""


def step_name(stage: Stage, share: float) -> str:
    return f"{stage}-{share * 100:g}" if stage == "canary" else stage


def place_of(user_id: str, rollout: Rollout) -> Place:
    """Arm and cluster of a user: the same on every worker, at every moment of a stage."""
    digest = hashlib.blake2b(user_id.encode(), key=rollout._salt, digest_size=16).digest()
    where = int.from_bytes(digest[:8], "big") / 2**64
    arm: Arm = "champion"
    if where < rollout.share:
        arm = "challenger"
    elif where >= 1 - rollout.share:
        arm = "control"
    return Place(arm, int.from_bytes(digest[8:], "big") % CLUSTERS)


def arm_of(user_id: str, rollout: Rollout) -> Arm:
    return place_of(user_id, rollout).arm


def read_rollout(store: Store) -> Rollout | None:
    """The rollout that runs; None where none does. Raises ArtifactError where it cannot be read."""
    return _read(store, ROLLOUT, Rollout, "Run 'basketweave rollback', which ends the rollout.")


def write_rollout(store: Store, rollout: Rollout) -> None:
    """Begin or advance a rollout. Written whole: a worker reads one stage or the other."""
    store.write_json(ROLLOUT, rollout.model_dump(mode="json"))


def end_rollout(store: Store) -> None:
    """From the next poll on nobody gets the challenger, unless the pointer names it."""
    store.delete(ROLLOUT)


def read_candidate(store: Store) -> Candidate | None:
    """The bundle that waits for its rollout."""
    return _read(store, CANDIDATE, Candidate, "Deploy again to write it anew.")


def write_candidate(store: Store, candidate: Candidate) -> None:
    """Offer a bundle for the next rollout; one that waited already has been overtaken and is forgotten."""
    store.write_json(CANDIDATE, candidate.model_dump(mode="json"))


def withdraw_candidate(store: Store, sha256: str) -> None:
    """Forget the waiting bundle if it is this one."""
    waiting = read_candidate(store)
    if waiting is not None and waiting.bundle.sha256 == sha256:
        store.delete(CANDIDATE)


def read_barred(store: Store) -> Mapping[str, Bar]:
    """Barred bundles by content hash. Raises ArtifactError where the list cannot be read: the gate fails closed."""
    if not store.exists(BARRED):
        return {}
    try:
        return {sha256: Bar.model_validate(bar) for sha256, bar in store.read_json(BARRED).items()}
    except (ValueError, AttributeError, ValidationError) as error:
        raise ArtifactError(
            f"{store.uri(BARRED)} cannot be read. Mend or delete it: it lists barred bundles."
        ) from error


def bar(store: Store, sha256: str, *, reason: str, rollout: str | None = None) -> None:
    """Keep a bundle from being promoted by the schedule. The first reason stays."""
    barred = read_barred(store)
    if sha256 not in barred:
        _write_barred(store, {**barred, sha256: Bar(reason=reason, at=wall_clock(), rollout=rollout)})


def unbar(store: Store, prefix: str) -> tuple[str, Bar]:
    """Lift the bar of the one bundle whose hash begins with `prefix`; returns its hash and what it was barred for."""
    barred = read_barred(store)
    sha256 = the_one(prefix, barred, what="barred bundle")
    _write_barred(store, {other: why for other, why in barred.items() if other != sha256})
    return sha256, barred[sha256]


def barred_sentence(store: Store, sha256: str) -> str | None:
    """Why a bundle may not be promoted, and what a person can do; None: it may."""
    why = read_barred(store).get(sha256)
    if why is None:
        return None
    return (
        f"bundle {sha256[:12]} is barred since {why.at:%Y-%m-%d %H:%M} UTC ({why.reason}); "
        f"a person may lift that by 'basketweave unbar {sha256[:12]}'"
    )


def the_one(prefix: str, hashes: Mapping[str, object], *, what: str) -> str:
    """The only hash that begins with `prefix`. Raises StopError where there is none, or several."""
    found = [sha256 for sha256 in hashes if prefix and sha256.startswith(prefix)]
    if len(found) != 1:
        known = ", ".join(sha256[:12] for sha256 in hashes) or "none"
        raise StopError(f"'{prefix}' names {len(found) or 'no'} {what}{'s' * (len(found) > 1)}; there are: {known}.")
    return found[0]


def _write_barred(store: Store, barred: Mapping[str, Bar]) -> None:
    store.write_json(BARRED, {sha256: why.model_dump(mode="json") for sha256, why in barred.items()})


def _read(store: Store, relative: str, kind: type[R], what_to_do: str) -> R | None:
    if not store.exists(relative):
        return None
    try:
        return kind.model_validate(store.read_json(relative))
    except FileNotFoundError:  # deleted since it was looked for
        return None
    except (ValueError, ValidationError) as error:
        raise ArtifactError(f"{store.uri(relative)} cannot be read. {what_to_do}") from error
