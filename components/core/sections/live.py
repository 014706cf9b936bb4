"""Settings of what serves, and of how a bundle gets there."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from components.core.clock import parse_time
from components.core.sections.base import Section, Share

Role = Literal["recommend", "feedback", "admin"]


class DeploySettings(Section):
    """The service that `deploy` starts or swaps."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    """None: a free port is chosen once and kept in the home folder."""
    ready_timeout_seconds: float = Field(default=120, gt=0)
    model_name: str = "basketweave"
    """Name of the registered model in MLflow."""
    start_service: bool = True
    """False where the service is run by somebody else (Kubernetes): deploy then only moves the pointer."""
    rollout: Literal["direct", "staged"] = "direct"
    """How a promoted bundle gets to serve: at once, or through the DAG `rollout` (shadow, canary, production). The
    first bundle of a project is always served at once."""
    api_key: SecretStr | None = None
    """Key of role 'recommend' that the pipeline's own commands send; None: the first plain one of serve.api_keys."""


class ApiKey(Section):
    """Who may ask, and what. `basketweave api-key` makes a key and the line for it; the key itself is kept nowhere."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """SHA-256 of the key. Keys are 256 random bits, which no dictionary holds, so a slow hash would add nothing."""
    roles: tuple[Role, ...] = Field(default=("recommend",), min_length=1)
    """'recommend': lists, items, histories, the model. 'feedback': events. 'admin': what serve.admin switches on."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    """Who has it: the key's place in caps and refusals; no two keys share one."""


class ServeSettings(Section):
    """The service itself."""

    workers: int = Field(default=1, ge=1)
    api_keys: tuple[ApiKey | SecretStr, ...] = ()
    """Keys that callers send as `Authorization: Bearer …`; needed for any host that is not loopback. A plain text is
    the key itself, with the roles recommend and feedback."""
    admin: bool = False
    """Whether there are admin routes at all."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """Requests of one key (without keys: of this machine), in the long run and over all workers of a service; None:
    no limit. More are refused with 429. Each worker keeps its own part of it, so several pods each allow as much."""
    request_burst: int = Field(default=100, ge=1)
    """Requests that a key may send at once on top of that."""
    pointer_poll_seconds: float = Field(default=1.0, gt=0)
    """How often a worker looks whether the pointer names another bundle."""
    max_k: int = Field(default=100, ge=1)
    max_history: int = Field(default=1000, ge=1)
    max_batch_users: int = Field(default=1000, ge=1, le=10_000)
    """Users of one request to /recommend/batch."""
    max_events: int = Field(default=1000, ge=1, le=10_000)
    """Events of one request to /events."""
    max_body_bytes: int = Field(default=1_000_000, ge=1024)
    """A larger request body is refused with 413."""
    body_timeout_seconds: float = Field(default=10, gt=0)
    """A request body that takes longer to arrive is refused with 408."""
    max_concurrent_requests: int = Field(default=64, ge=1)
    """Requests that the service works on at once, over all workers; more are shed with 429."""
    request_timeout_seconds: float = Field(default=30, ge=1)
    """A request that takes longer is answered with 504."""
    bundle: str | None = None
    """Folder of the one bundle to serve; None: follow the deploy pointer in the artifact store."""
    clock: str | None = None
    """'Now', against which histories are aged: an ISO time, or 'wall' for the wall clock of a shop whose events are
    live; None: the bundle's `as_of`, which makes a finished log a replay."""

    fresh_store: SecretStr | None = None
    """Redis URL of what users did since their features were made, shared by all workers and pods; None: Redis where
    the online store is Redis, else a SQLite file in the project's home, shared by the workers of one machine."""
    fresh_events: int = Field(default=200, ge=1)
    """Latest events kept a user."""
    fresh_days: float = Field(default=3, gt=0)
    """How long they are kept: until features that contain them are surely there."""
    fresh_poll_seconds: float = Field(default=0.2, gt=0, le=1)
    """How often a worker asks whose events are new. A recommendation reflects an event that much later at the most."""
    max_user_weight: float = Field(default=200, gt=0)
    """What one user's events may weigh in a day (a purchase 1, a cart 0.5, a view 0.2, an impression 0.01): more are
    not taken, so that nobody bends the item graph alone."""
    max_key_user_weight: float = Field(default=150, gt=0)
    """The same for the events of one user that one API key sends."""
    pseudonym_key: SecretStr | None = None
    """Key of the hash that stands for a user in the fresh store and in logged lists; None: made once and kept in the
    project's home, or derived from the Redis URL, which all pods share."""
    served_log_share: Share = 0.1
    """Share of served lists that are logged with their propensities, for off-policy estimates; 0: none."""
    served_log_max_mb: float = Field(default=1000, gt=0)
    """Logged lists beyond this much disk are deleted, the oldest first."""
    exploration: Share = 0.0
    """Share of lists whose order is drawn at random around the best ones, so that off-policy estimates have something
    to compare; 0: every list is the best one."""
    exploration_temperature: float = Field(default=0.5, gt=0)
    """How far from the best such a list strays, in units of the score."""

    @field_validator("api_keys")
    @classmethod
    def _keys_are_told_apart(cls, keys: tuple[ApiKey | SecretStr, ...]) -> tuple[ApiKey | SecretStr, ...]:
        names = [key.name for key in keys if isinstance(key, ApiKey)]
        if len(set(names)) < len(names):
            raise ValueError("two keys have one name")
        if any(key.get_secret_value().startswith("sha256:") for key in keys if isinstance(key, SecretStr)):
            raise ValueError(
                "a digest stands in {digest = …, roles = […], name = …}, as `basketweave api-key` writes it"
            )
        return keys

    @model_validator(mode="after")
    def _a_key_is_part_of_a_user(self) -> Self:
        if self.max_key_user_weight > self.max_user_weight:
            raise ValueError("max_key_user_weight may not be more than max_user_weight")
        return self

    @field_validator("clock")
    @classmethod
    def _clock_is_a_time(cls, clock: str | None) -> str | None:
        if clock not in (None, "wall"):
            parse_time(clock)
        return clock
