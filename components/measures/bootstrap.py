"""Paired bootstrap over users: how sure a difference between two models on the same users is.

Users (or clusters of them) are drawn again with replacement; the mean of the drawn differences is taken each time, and
the interval is where the middle `confidence` of these means lies (percentile method). `Resampled` keeps the means
themselves, from which one-sided bounds and the p-values of one-sided tests are read.

Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16.

Legend of shape suffixes: U users, C drawn units, M columns, G groups of users, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_CHUNK_DRAWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and where it lies. All three are nan if a user has no value, or there are no users."""

    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Means of M columns over the users, and over R draws of them. All columns see the same draws."""

    mean_M: Floats
    means_RM: Floats

    def intervals(self, *, confidence: float) -> list[Interval]:
        """One a column; two-sided, so that 0.95 leaves 2.5 % beyond either end."""
        tail = (1 - confidence) / 2
        if not self.means_RM.shape[1]:
            return []
        lower, upper = np.quantile(self.means_RM, [tail, 1 - tail], axis=0)
        # nan, as every figure of a column that has no mean.
        known_M = np.isfinite(self.mean_M)
        lower, upper = np.where(known_M, lower, np.nan), np.where(known_M, upper, np.nan)
        return [
            Interval(mean=float(mean), lower=float(low), upper=float(high))
            for mean, low, high in zip(self.mean_M, lower, upper, strict=True)
        ]

    def p_above(self, column: int, value: float) -> float:
        """p-value of 'the mean is at most `value`' against 'it is above'; nan where the mean is."""
        return self._p_value(column, self.means_RM[:, column] <= value)

    def p_below(self, column: int, value: float) -> float:
        """p-value of 'the mean is at least `value`' against 'it is below'; nan where the mean is."""
        return self._p_value(column, self.means_RM[:, column] >= value)

    def _p_value(self, column: int, beyond_R: NDArray[np.bool_]) -> float:
        # The observed sample counts as one of the draws: a p-value of 0 cannot be had from finitely many of them
        # (Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 4.2).
        if not np.isfinite(self.mean_M[column]):
            return float("nan")
        return float((1 + np.count_nonzero(beyond_R)) / (1 + len(beyond_R)))


def resample(
    values: ArrayLike,
    *,
    resamples: int,
    seed: int,
    clusters: ArrayLike | None = None,
    members: NDArray[np.bool_] | None = None,
    member_column: ArrayLike | None = None,
) -> Resampled:
    """Values (U,) or (U, M) -> means of the columns over users drawn with replacement.

    Args:
        clusters: (U,) rows of one cluster are drawn together (a household's months, say).
        members: (U, G) groups of users; values of those who are not of a column's group may be anything.
        member_column: (M,) which group each column is a mean over; -1 is all users.

    Beside the means, one a resample and column, a fixed number of draws is held at a time. A column without a user, or
    with a user who has no value, is nan throughout.
    """
    values_UM = np.asarray(values, dtype=np.float64)
    values_UM = values_UM[:, None] if values_UM.ndim == 1 else values_UM
    num_users, num_columns = values_UM.shape
    everybody = np.ones((num_users, 1), dtype=bool)
    members_UG = everybody if members is None else np.hstack([members, everybody])
    group_M = np.full(num_columns, -1) if member_column is None else np.asarray(member_column, dtype=np.int64)
    if members is not None:
        values_UM = np.where(members_UG[:, group_M], values_UM, 0.0)
    sums_CN = _by_cluster(np.column_stack([values_UM, members_UG]), clusters)
    whole_N = sums_CN.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_M = whole_N[:num_columns] / whole_N[num_columns:][group_M]
        if not num_users:
            return Resampled(mean_M=mean_M, means_RM=np.full((resamples, num_columns), np.nan))
        totals_RN = _resampled_totals(sums_CN, resamples=resamples, generator=np.random.default_rng(seed))
        return Resampled(mean_M=mean_M, means_RM=totals_RN[:, :num_columns] / totals_RN[:, num_columns:][:, group_M])


def paired_bootstrap(
    differences: ArrayLike,
    *,
    resamples: int,
    confidence: float,
    seed: int,
    clusters: ArrayLike | None = None,
) -> list[Interval]:
    """Differences (U,) or (U, M), one column a comparison -> one interval a column; `clusters` as in `resample`."""
    drawn = resample(differences, resamples=resamples, seed=seed, clusters=clusters)
    return drawn.intervals(confidence=confidence)


def _by_cluster(columns_UN: Floats, clusters: ArrayLike | None) -> Floats:
    """Sums (C, N) of the units that are drawn."""
    if clusters is None:
        return columns_UN
    _, code_U = np.unique(np.asarray(clusters), return_inverse=True)
    if len(code_U) != len(columns_UN):
        raise ValueError(f"{len(code_U)} cluster labels for {len(columns_UN)} differences")
    sums_CN = np.zeros((code_U.max(initial=-1) + 1, columns_UN.shape[1]))
    np.add.at(sums_CN, code_U, columns_UN)
    return sums_CN


def _resampled_totals(columns_CN: Floats, *, resamples: int, generator: np.random.Generator) -> Floats:
    """-> (R, N): column sums over C units drawn with replacement, some resamples at a time."""
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
