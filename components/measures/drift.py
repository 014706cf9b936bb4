"""Distances between two distributions, as drift monitoring uses them. All over counts, so that windows can be added.

K: bins or kinds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import jensenshannon

Floats = npt.NDArray[np.float64]

# Added to every bin of both sides, so that an empty one is a small share and not an infinite distance.
PSEUDO_COUNT = 0.5


def psi(reference_K: npt.ArrayLike, window_K: npt.ArrayLike) -> float:
    """Population stability index: the sum over bins of (w - r) · ln(w / r), of shares w and r; 0 where they agree.

    Counts (K,) -> nats. Customary reading: under 0.1 stable, over 0.25 another population. Symmetric.
    Source: Siddiqi, Credit Risk Scorecards (2006). Raises ValueError where lengths differ.
    """
    reference, window = _shares(reference_K), _shares(window_K)
    if reference.shape != window.shape:
        raise ValueError(f"{len(reference)} bins cannot be compared with {len(window)}.")
    return float(np.sum((window - reference) * np.log(window / reference)))


def jensen_shannon(reference_K: npt.ArrayLike, window_K: npt.ArrayLike) -> float:
    """Jensen-Shannon distance: the root of the divergence in bits, from 0 (equal) to 1 (nothing in common).

    Counts (K,), not both empty. Source: Endres and Schindelin, A new metric for probability distributions (2003).
    """
    reference, window = np.asarray(reference_K, np.float64), np.asarray(window_K, np.float64)
    if reference.shape != window.shape:
        raise ValueError(f"{len(reference)} kinds cannot be compared with {len(window)}.")
    if not (reference.sum() > 0 and window.sum() > 0):
        return float("nan")
    return float(np.nan_to_num(jensenshannon(reference, window, base=2)))


def quantile_edges(values_N: npt.ArrayLike, *, bins: int) -> Floats:
    """Inner edges (at most bins - 1,) that cut finite values into equally full bins; ties make fewer bins."""
    values = np.asarray(values_N, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return np.empty(0)
    return np.unique(np.quantile(values, np.arange(1, bins) / bins))


def bin_counts(values_N: npt.ArrayLike, edges: Floats) -> Floats:
    """(len(edges) + 2,) counts: a bin between each two edges, and last the values that are missing or not finite."""
    values = np.asarray(values_N, np.float64)
    present = np.isfinite(values)
    counts = np.bincount(np.searchsorted(edges, values[present], side="right"), minlength=len(edges) + 1)
    return np.append(counts, (~present).sum()).astype(np.float64)


def _shares(counts: npt.ArrayLike) -> Floats:
    smoothed = np.asarray(counts, np.float64) + PSEUDO_COUNT
    shares: Floats = smoothed / smoothed.sum()
    return shares
