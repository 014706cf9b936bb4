"""Many tests at once: which of them still say something when the chance of a single false alarm is bounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def holm(p_values: Sequence[float], *, level: float) -> NDArray[np.bool_]:
    """Holm's step-down: which hypotheses are rejected so that any false rejection has probability `level` at most.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979. Whatever
    the tests' dependence. A p-value that is nan takes its place in the family and is never rejected.
    """
    p_M = np.nan_to_num(np.asarray(p_values, dtype=np.float64), nan=1.0)
    order = np.argsort(p_M, kind="stable")
    fits = p_M[order] <= level / np.arange(len(p_M), 0, -1)
    rejected_M = np.zeros(len(p_M), dtype=bool)
    # The smallest p-value that misses its bar keeps all larger ones out.
    rejected_M[order[np.logical_and.accumulate(fits)]] = True
    return rejected_M
