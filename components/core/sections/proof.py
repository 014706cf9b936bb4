"""Settings of what a bundle must show before it may serve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.core.sections.base import Section


class EvaluateSettings(Section):
    """Metrics and gates."""

    cutoff_k: int = Field(default=20, ge=1)
    """Length of the ranked list that every metric looks at."""
    bootstrap_resamples: int = Field(default=2000, ge=100)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_users: int = Field(default=100, ge=1)
    """Fewer evaluated users than this is 'insufficient', never a pass."""
    min_recall: float = Field(default=0.005, ge=0)
    min_ndcg: float = Field(default=0.005, ge=0)
    min_coverage: float = Field(default=0.003, ge=0)
    """Share of the catalogue that appears in at least one user's list."""
    example_users: int = Field(default=5, ge=0)
