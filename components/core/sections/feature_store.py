"""Settings of where features are kept. None of it shapes an artifact."""

from __future__ import annotations

from pydantic import Field, SecretStr

from components.core.sections.base import Section


class FeatureStoreSettings(Section):
    """Feast's online store and registry: files in the home folder, or servers that every machine reaches."""

    online_url: SecretStr | None = None
    """URL of the Redis that holds the online features, such as `redis://:PASSWORD@redis:6379/0` (`rediss://` with TLS);
    None: SQLite in the home folder."""
    registry_url: SecretStr | None = None
    """URL of the PostgreSQL that holds Feast's registry, such as `postgresql://USER:PASSWORD@host:5432/feast`; None: a
    file in the home folder."""
    online_timeout_seconds: float = Field(default=1, gt=0)
    """A Redis that does not answer within this time counts as down, and a list is made without it."""
