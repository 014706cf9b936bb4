"""Base logits: what the score holds besides the similarity, fixed while the convolution is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from components.train.windows import TrainingWindow


def base_logits(
    window: TrainingWindow, weights: Mapping[str, float], *, own_popularity: bool = False, chunk: int = 256
) -> Tensor:
    """(B, C) float16: the weighted counted terms, -inf where the user has seen the item.

    With `own_popularity`, what the window itself sold stands in for the popularity that was known before it. A model
    trained on such a base learns tastes: what was in season is explained already, and would be wrong next month.
    """
    popularity = {"popularity", "recent_popularity"} if own_popularity else set()
    sold_C = torch.bincount(window.new_targets.items, minlength=len(window.candidates_C))
    device = window.item_degree_I.device
    out = torch.empty(len(window), len(window.candidates_C), dtype=torch.float16, device=device)
    for rows in torch.split(torch.arange(len(window), device=device), chunk):
        total: Tensor = (
            torch.log1p(sold_C.float())[None, :] if own_popularity else sold_C.new_zeros(1, dtype=torch.float32)
        )
        for name, term in window.counted.compute(window.histories.rows(rows)).items():
            if name in popularity:
                continue
            total = total + term[:, window.candidates_C] * weights.get(name, 0.0)
        total = total - total.amax(dim=1, keepdim=True)  # keeps float16 in range; a softmax does not see it
        user, position = window.seen_positions(rows)
        total[user, position] = -torch.inf
        out[rows] = total.half()
    return out
