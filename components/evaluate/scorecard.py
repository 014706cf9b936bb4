"""From ranked lists to figures: metrics with intervals, differences to the baselines, slices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from components.core.sections import EvaluateSettings
from components.evaluate.contest import MODEL
from components.measures.bootstrap import Interval, paired_bootstrap
from components.measures.interactions import Interactions
from components.measures.ranking import ListMetrics, Ranked, coverage, list_metrics, novelty, popularity_lift
from components.measures.slices import STRATA, history_slices, item_strata, targets_of

BOOTSTRAP_SEED = 20_171_231

Lists = Mapping[str, Ranked]  # entrant -> (R, k)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one entrant did. `coverage` is a share of the catalogue, `novelty` is in bits, a lift of 1 is no bias."""

    metrics: Mapping[str, Interval]
    coverage: float
    novelty: float
    popularity_lift: float


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """One setting's contest."""

    users: int
    targets: int
    standings: Mapping[str, Standing]
    differences: Mapping[str, Mapping[str, Interval]]
    """Baseline -> metric -> model minus baseline, over the same users."""
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
    settings: Mapping[str, SettingResult]
    slices: tuple[SliceResult, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON values; nan becomes null."""
        plain: dict[str, Any] = finite_or_none(dataclasses.asdict(self))
        return plain


def score_setting(
    lists: Lists, targets: sp.csr_matrix, *, known: Interactions, settings: EvaluateSettings
) -> SettingResult:
    """Lists and targets of the same R users, each with at least one target."""
    by_entrant = {name: list_metrics(ranked, targets) for name, ranked in lists.items()}
    names = list(by_entrant[MODEL].by_name())
    baselines = [name for name in by_entrant if name != MODEL]
    columns = [values for metrics in by_entrant.values() for values in metrics.by_name().values()]
    columns += [_differences(by_entrant, baseline)[name] for baseline in baselines for name in names]
    intervals = iter(_intervals(np.column_stack(columns), settings))
    metrics = {entrant: {name: next(intervals) for name in names} for entrant in by_entrant}
    differences = {baseline: {name: next(intervals) for name in names} for baseline in baselines}
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
            )
            for entrant, ranked in lists.items()
        },
        differences=differences,
        best_baseline=max(baselines, key=lambda name: np.nan_to_num(metrics[name]["recall"].mean, nan=-1.0)),
    )


def score_slices(
    lists: Lists,
    targets: sp.csr_matrix,
    *,
    rows: np.ndarray,
    known: Interactions,
    baseline: str,
    settings: EvaluateSettings,
) -> tuple[SliceResult, ...]:
    """Slices of the setting `new_items`; `rows` (R,) are the users' rows in `known`."""
    popularity = np.zeros(targets.shape[1], dtype=np.int64)
    popularity[: len(known.popularity)] = known.popularity
    stratum_I = item_strata(popularity)
    parts = [("items bought", name, targets_of(targets, stratum_I == code)) for code, name in enumerate(STRATA)]
    slices = []
    for group, name, part in parts:
        slices.append(_slice(group, name, np.diff(part.indptr) > 0, part, lists, baseline, settings))
    for name, members in history_slices(np.diff(known.seen.indptr)[rows]).items():
        slices.append(_slice("users", name, members, targets, lists, baseline, settings))
    return tuple(slices)


def finite_or_none(value: Any) -> Any:
    """The same value with None for nan and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): finite_or_none(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(part) for part in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _slice(
    group: str,
    name: str,
    members: np.ndarray,
    targets: sp.csr_matrix,
    lists: Lists,
    baseline: str,
    settings: EvaluateSettings,
) -> SliceResult:
    chosen = np.flatnonzero(members)
    part = targets[chosen]
    model = list_metrics(lists[MODEL][chosen], part).recall
    other = list_metrics(lists[baseline][chosen], part).recall
    model_, other_, difference = _intervals(np.column_stack([model, other, model - other]), settings)
    return SliceResult(
        group=group,
        name=name,
        users=len(chosen),
        targets=int(part.nnz),
        model=model_,
        baseline=other_,
        difference=difference,
    )


def _differences(by_entrant: Mapping[str, ListMetrics], baseline: str) -> dict[str, np.ndarray]:
    model, other = by_entrant[MODEL].by_name(), by_entrant[baseline].by_name()
    return {name: model[name] - other[name] for name in model}


def _intervals(columns: np.ndarray, settings: EvaluateSettings) -> list[Interval]:
    return paired_bootstrap(
        columns, resamples=settings.bootstrap_resamples, confidence=settings.confidence, seed=BOOTSTRAP_SEED
    )


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
