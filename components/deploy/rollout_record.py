"""What a rollout went through, kept in the store: `deploy/rollouts/<id>.json`, and the report beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.artifact import ArtifactRef
from components.core.errors import ArtifactError
from components.core.pipeline_metrics import Sample, publish
from components.core.settings import Settings
from components.core.store import Store
from components.deploy.decision import Look

ROLLOUTS = "deploy/rollouts"
# Of more looks than this every other one is forgotten, so that a week of polling stays a small file.
MOST_LOOKS = 400

Outcome = Literal["running", "promoted", "aborted", "rolled back", "ended"]


class Happening(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: datetime
    text: str


class RolloutRecord(BaseModel):
    """One rollout from its beginning to its end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    challenger: ArtifactRef
    champion: ArtifactRef
    version: str
    """The challenger's version in the registry."""
    run_id: str
    started_at: datetime
    outcome: Outcome = "running"
    reason: str | None = None
    ended_at: datetime | None = None
    happenings: tuple[Happening, ...] = ()
    looks: tuple[Look, ...] = ()

    def happened(self, at: datetime, text: str) -> RolloutRecord:
        return self.model_copy(update={"happenings": (*self.happenings, Happening(at=at, text=text))})

    def looked(self, look: Look) -> RolloutRecord:
        """With one more look; of a stage's earlier ones only those that decided something are sure to stay."""
        looks: Sequence[Look] = (*self.looks, look)
        if len(looks) > MOST_LOOKS:
            older, newer = looks[: MOST_LOOKS // 2], looks[MOST_LOOKS // 2 :]
            looks = (*(one for n, one in enumerate(older) if n % 2 == 0 or one.decision != "wait"), *newer)
        return self.model_copy(update={"looks": tuple(looks)})

    def ended(self, at: datetime, outcome: Outcome, reason: str) -> RolloutRecord:
        """Said for good: a second end does not change the first, but a rollback after production does."""
        if self.outcome not in ("running", "promoted"):
            return self
        update = {"outcome": outcome, "reason": reason, "ended_at": at}
        return self.model_copy(update=update).happened(at, f"{outcome}: {reason}")


def record_path(rollout_id: str, suffix: str = "json") -> str:
    return f"{ROLLOUTS}/{rollout_id}.{suffix}"


def read_record(store: Store, rollout_id: str) -> RolloutRecord:
    """Raises ArtifactError where there is none, or it cannot be read."""
    try:
        return RolloutRecord.model_validate(store.read_json(record_path(rollout_id)))
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no rollout '{rollout_id}' under {store.uri(ROLLOUTS)}.") from error
    except (ValueError, ValidationError) as error:
        raise ArtifactError(
            f"{store.uri(record_path(rollout_id))} cannot be read. Run 'basketweave rollback', which ends the rollout."
        ) from error


def publish_outcome(settings: Settings, outcome: Outcome) -> None:
    """Tell Prometheus how the last rollout stands."""
    samples = [
        Sample("basketweave_rollout_outcome", {"outcome": one}, float(one == outcome)) for one in get_args(Outcome)
    ]
    publish(settings, group="rollout", samples=samples)


def write_record(store: Store, record: RolloutRecord) -> None:
    """The record, and the report that people read."""
    from components.deploy.rollout_report import render

    store.write_json(record_path(record.id), record.model_dump(mode="json"))
    store.write_bytes(record_path(record.id, "html"), render(record).encode())
