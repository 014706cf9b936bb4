"""Settings of what serves, and of how a bundle gets there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from components.core.clock import parse_time
from components.core.sections.base import Section


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


class ServeSettings(Section):
    """The service itself."""

    workers: int = Field(default=1, ge=1)
    api_keys: tuple[SecretStr, ...] = ()
    """Keys that callers send as `Authorization: Bearer …`; needed for any host that is not loopback."""
    pointer_poll_seconds: float = Field(default=1.0, gt=0)
    """How often a worker looks whether the pointer names another bundle."""
    max_k: int = Field(default=100, ge=1)
    max_history: int = Field(default=1000, ge=1)
    max_body_bytes: int = Field(default=1_000_000, ge=1024)
    """A larger request body is refused with 413."""
    max_concurrent_requests: int = Field(default=64, ge=1)
    """Requests that the service works on at once, over all workers; more are shed with 429."""
    request_timeout_seconds: float = Field(default=30, ge=1)
    """A request that takes longer is answered with 504."""
    bundle: str | None = None
    """Folder of the one bundle to serve; None: follow the deploy pointer in the artifact store."""
    clock: str | None = None
    """'Now', against which histories are aged: an ISO time, or 'wall' for the wall clock of a shop whose events are
    live; None: the bundle's `as_of`, which makes a finished log a replay."""

    @field_validator("clock")
    @classmethod
    def _clock_is_a_time(cls, clock: str | None) -> str | None:
        if clock not in (None, "wall"):
            parse_time(clock)
        return clock
