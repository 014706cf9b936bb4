"""Paired bootstrap over users: how sure a difference between two models on the same users is.

Users (or clusters of them) are drawn again with replacement; the mean of the drawn differences is taken each time, and
the interval is where the middle `confidence` of these means lies (percentile method).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK_DRAWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and where it lies. All three are nan if a user has no value, or there are no users."""

    mean: float
    lower: float
    upper: float


def paired_bootstrap(
    differences: ArrayLike,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    clusters: ArrayLike | None = None,
) -> list[Interval]:
    """Differences (U,) or (U, M), one column a comparison -> one interval a column.

    All columns see the same draws. `clusters` (U,): rows of one cluster are drawn together (a household's months, say).
    Beside the means, one a resample and column, a fixed number of draws is held at a time.
    """
    values_UM = np.asarray(differences, dtype=np.float64)
    values_UM = values_UM[:, None] if values_UM.ndim == 1 else values_UM
    sums_CM, sizes_C = _by_cluster(values_UM, clusters)
    if not len(sums_CM):
        return [Interval(mean=np.nan, lower=np.nan, upper=np.nan) for _ in range(values_UM.shape[1])]
    columns = np.column_stack([sums_CM, sizes_C])
    totals = _resampled_totals(columns, resamples=resamples, generator=np.random.default_rng(seed))
    means = totals[:, :-1] / totals[:, -1:]
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(means, [tail, 1 - tail], axis=0)
    return [
        Interval(mean=float(mean), lower=float(low), upper=float(high))
        for mean, low, high in zip(values_UM.mean(axis=0), lower, upper, strict=True)
    ]


def _by_cluster(values_UM: NDArray[np.float64], clusters: ArrayLike | None) -> tuple[NDArray[np.float64], ...]:
    """Sums (C, M) and sizes (C,) of the units that are drawn."""
    if clusters is None:
        return values_UM, np.ones(len(values_UM))
    _, code_U = np.unique(np.asarray(clusters), return_inverse=True)
    if len(code_U) != len(values_UM):
        raise ValueError(f"{len(code_U)} cluster labels for {len(values_UM)} differences")
    sums_CM = np.zeros((code_U.max(initial=-1) + 1, values_UM.shape[1]))
    np.add.at(sums_CM, code_U, values_UM)
    return sums_CM, np.bincount(code_U).astype(np.float64)


def _resampled_totals(
    columns_CN: NDArray[np.float64], *, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """-> (resamples, N): column sums over C units drawn with replacement, some resamples at a time."""
    num_units = len(columns_CN)
    step = max(1, _CHUNK_DRAWS // num_units)
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(num_units, size=(count, num_units))
        drawn += np.arange(count)[:, None] * num_units
        times_drawn = np.bincount(drawn.ravel(), minlength=count * num_units).reshape(count, num_units)
        parts.append(times_drawn.astype(np.float64) @ columns_CN)
    return np.concatenate(parts)
