"""Settings of what a bundle must show before it may serve."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.core.sections.base import Section, Share


class EvaluateSettings(Section):
    """Metrics and gates. What a gate does with a threshold stands in components/evaluate/gates.py."""

    cutoff_k: int = Field(default=20, ge=1)
    """Length of the ranked list that every metric looks at."""
    bootstrap_resamples: int = Field(default=2000, ge=100)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of two-sided intervals beside baselines, and of one-sided bounds beside the champion."""
    min_users: int = Field(default=100, ge=1)
    """Fewer evaluated users than this, in all or in a slice, is 'insufficient', never a pass."""
    min_recall: float = Field(default=0.005, ge=0)
    min_ndcg: float = Field(default=0.005, ge=0)
    min_coverage: float = Field(default=0.003, ge=0)
    """Share of the catalogue that appears in at least one user's list."""
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The smallest loss that matters, as a share of the champion's mean: not worse than it by this is good enough."""
    slice_margin: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """The same in a slice, where there are fewer users to see a loss by."""
    slice_categories: int = Field(default=8, ge=0)
    """Categories of which the most is taken, each a slice."""
    max_gain: float = Field(default=0.5, gt=0)
    """A recall that is higher than the champion's by more than this share is too good to be true: a person looks."""
    max_baseline_ratio: float = Field(default=4.0, gt=1)
    """The same beside the best baseline: more than so many times its recall."""
    min_coverage_ratio: float = Field(default=0.8, ge=0)
    """Guardrails, each the challenger's figure over the champion's on the same users."""
    max_popularity_lift_ratio: float = Field(default=1.25, gt=0)
    min_novelty_ratio: float = Field(default=0.9, ge=0)
    min_diversity_ratio: float = Field(default=0.9, ge=0)
    max_miscalibration_ratio: float = Field(default=1.25, gt=0)
    max_size_ratio: float = Field(default=1.5, gt=0)
    """Bytes of the bundle."""
    max_latency_ratio: float = Field(default=1.5, gt=0)
    """99th percentile of the CPU time of a single request."""
    latency_requests: int = Field(default=200, ge=20)
    """Requests to each of the two bundles, in turns, that the percentile is of."""
    max_misplaced_excess: Share = 0.01
    """Items whose vector is not among their neighbours in the graph: how many more may be so than of the champion's."""
    max_short_share: Share = 0.01
    """Share of users whose list is empty or shorter than `cutoff_k`."""
    max_fallback_share: Share = 0.01
    """Share of users with a history of whom the bundle knows nothing, so that they are answered like strangers."""
    max_skewed_share: Share = 0.01
    """Share of users whose features may differ from a recount of the log before they count as skewed."""
    accept_held: tuple[str, ...] = ()
    """Content hashes of bundles (12 digits are enough) whose 'hold' a person has looked at and lets pass."""
    example_users: int = Field(default=5, ge=0)
