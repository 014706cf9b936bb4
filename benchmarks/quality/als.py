"""Matrix factorisation by alternating least squares (Hu, Koren, Volinsky, ICDM 2008) as a baseline, by `implicit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from components.measures.baselines import Baseline, Rows
from components.measures.interactions import Interactions

SEED = 20_171_231


class ImplicitAls:
    """User factors times item factors; confidence 1 + alpha · frequency."""

    name = "implicit ALS"

    def __init__(self, *, factors: int, alpha: float, regularization: float = 0.01) -> None:
        self._factors, self._alpha, self._regularization = factors, alpha, regularization

    @property
    def parameters(self) -> Mapping[str, float]:
        return {"factors": self._factors, "alpha": self._alpha}

    def fit(self, known: Interactions) -> None:
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):  # else OpenBLAS's threads and the library's own wait for each other
            model = AlternatingLeastSquares(
                factors=self._factors, alpha=self._alpha, regularization=self._regularization, random_state=SEED
            )
            model.fit(known.seen, show_progress=False)
        self._user_UF, self._item_IF = (
            torch.from_numpy(np.asarray(part)) for part in (model.user_factors, model.item_factors)
        )

    def score(self, rows: Rows) -> Tensor:
        """Users (B,) -> (B, I) float32."""
        scores: Tensor = self._user_UF[torch.from_numpy(rows)] @ self._item_IF.T
        return scores


ALS_GRID: Sequence[Callable[[], Baseline]] = tuple(
    partial(ImplicitAls, factors=factors, alpha=alpha) for factors in (32, 64) for alpha in (1.0, 10.0)
)
