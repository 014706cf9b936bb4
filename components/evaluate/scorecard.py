"""From ranked lists to figures: metrics with intervals, differences to the baselines, slices, what lists are like."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from components.core.sections import EvaluateSettings
from components.evaluate.comparison import BOOTSTRAP_SEED, Comparison
from components.evaluate.contest import CHAMPION, MODEL
from components.evaluate.parts import Part
from components.measures.bootstrap import Interval, paired_bootstrap, resample
from components.measures.interactions import Interactions
from components.measures.lists import category_miscalibration, intra_list_diversity, short_lists
from components.measures.ranking import ListMetrics, Ranked, coverage, list_metrics, novelty, popularity_lift

Lists = Mapping[str, Ranked]  # entrant -> (R, k)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one entrant did, and what its lists are like."""

    metrics: Mapping[str, Interval]
    coverage: float
    """Share of the catalogue."""
    novelty: float
    """In bits."""
    popularity_lift: float
    """1 is no bias."""
    diversity: float
    """Share of a list's pairs that are of two categories; nan where no item has one."""
    miscalibration: float
    """KL divergence of the list's categories from the history's; nan where no item has one."""
    short_share: float
    """Share of the users whose list is empty or too short."""


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """One setting's contest."""

    users: int
    targets: int
    standings: Mapping[str, Standing]
    differences: Mapping[str, Mapping[str, Interval]]
    """Baseline, or the champion -> metric -> model minus it, over the same users."""
    best_baseline: str
    """The baseline with the highest recall, seen from the hold-out: the hardest one to beat."""


@dataclass(frozen=True, kw_only=True)
class SliceResult:
    """Recall on new items in a part of the users or of the items, beside the best baseline's."""

    group: str
    name: str
    users: int
    targets: int
    model: Interval
    baseline: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    k: int
    confidence: float
    resamples: int
    unknown_target_share: float
    """Share of the hold-out's targets that the bundle does not know; they count as misses."""
    fallback_share: float
    """Share of the users with a history of whom the bundle knows nothing."""
    settings: Mapping[str, SettingResult]
    slices: tuple[SliceResult, ...]
    has_no_categories: bool = False
    """No item has one, so that figures of categories cannot be had."""
    comparison: Comparison | None = None
    """Beside the champion; None where there is none to compare with."""

    def plain(self) -> dict[str, Any]:
        """As JSON values; nan becomes null."""
        plain: dict[str, Any] = finite_or_none(dataclasses.asdict(self))
        return plain


def score_setting(
    lists: Lists, targets: sp.csr_matrix, *, rows: np.ndarray, known: Interactions, settings: EvaluateSettings
) -> SettingResult:
    """Lists and targets of the same R users, rows (R,) of `known`, each with at least one target."""
    by_entrant = {name: list_metrics(ranked, targets) for name, ranked in lists.items()}
    names = list(by_entrant[MODEL].by_name())
    others = [name for name in by_entrant if name != MODEL]
    columns = [values for metrics in by_entrant.values() for values in metrics.by_name().values()]
    columns += [_differences(by_entrant, other)[name] for other in others for name in names]
    intervals = iter(
        paired_bootstrap(
            np.column_stack(columns),
            resamples=settings.bootstrap_resamples,
            confidence=settings.confidence,
            seed=BOOTSTRAP_SEED,
        )
    )
    metrics = {entrant: {name: next(intervals) for name in names} for entrant in by_entrant}
    differences = {other: {name: next(intervals) for name in names} for other in others}
    baselines = [name for name in others if name != CHAMPION]
    num_users = int((np.diff(known.seen.indptr) > 0).sum())
    return SettingResult(
        users=targets.shape[0],
        targets=int(targets.nnz),
        standings={
            entrant: Standing(
                metrics=metrics[entrant],
                coverage=coverage(ranked, num_items=known.seen.shape[1]),
                novelty=_mean_of_known(novelty(ranked, known.popularity, num_users=num_users)),
                popularity_lift=popularity_lift(ranked, known.popularity, targets),
                diversity=_mean_of_known(intra_list_diversity(ranked, known.category)),
                miscalibration=_mean_of_known(category_miscalibration(ranked, known.category, known.seen[rows])),
                short_share=float(short_lists(ranked).mean()) if len(ranked) else float("nan"),
            )
            for entrant, ranked in lists.items()
        },
        differences=differences,
        best_baseline=max(baselines, key=lambda name: np.nan_to_num(metrics[name]["recall"].mean, nan=-1.0)),
    )


def score_slices(
    lists: Lists, parts: list[Part], *, baseline: str, settings: EvaluateSettings
) -> tuple[SliceResult, ...]:
    """Slices of the setting `new_items`, all by the same draws of users."""
    columns = []
    for part in parts:
        model = list_metrics(lists[MODEL], part.targets).recall
        other = list_metrics(lists[baseline], part.targets).recall
        columns += [model, other, model - other]
    drawn = resample(
        np.column_stack(columns),
        resamples=settings.bootstrap_resamples,
        seed=BOOTSTRAP_SEED,
        members=np.column_stack([part.members_R for part in parts]),
        member_column=np.repeat(np.arange(len(parts)), 3),
    )
    intervals = iter(drawn.intervals(confidence=settings.confidence))
    return tuple(
        SliceResult(
            group=part.group,
            name=part.name,
            users=int(part.members_R.sum()),
            targets=int(part.targets[np.flatnonzero(part.members_R)].nnz),
            model=next(intervals),
            baseline=next(intervals),
            difference=next(intervals),
        )
        for part in parts
    )


def finite_or_none(value: Any) -> Any:
    """The same value with None for nan and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): finite_or_none(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _differences(by_entrant: Mapping[str, ListMetrics], other: str) -> dict[str, np.ndarray]:
    model, rest = by_entrant[MODEL].by_name(), by_entrant[other].by_name()
    return {name: model[name] - rest[name] for name in model}


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
