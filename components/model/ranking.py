"""The best k of a row of scores."""

from __future__ import annotations

import torch
from torch import Tensor

from components.model.histories import Histories

NO_ITEM = -1


def top_k(
    scores_BI: Tensor, *, k: int, histories: Histories | None = None, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """-> items (B, k) int64, best first, and their scores (B, k); NO_ITEM and -inf where fewer are left.

    `histories` are masked (items the user has seen), and so is every item where `allowed` (I,) is false. Equal scores
    go to the lower index, so that a list is the same on every machine.
    """
    masked_BI = scores_BI.clone()
    if histories is not None:
        masked_BI[histories.user_of_entry, histories.items] = -torch.inf
    if allowed is not None:
        masked_BI[:, ~allowed] = -torch.inf
    width = min(k, masked_BI.shape[1])
    values_Bk, items_Bk = torch.topk(masked_BI, width, dim=1)
    # Which of equals make it into the list is torch's choice; such rows are sorted whole.
    last_B1 = values_Bk[:, -1:]
    is_cut_B = (masked_BI == last_B1).sum(dim=1) > (values_Bk == last_B1).sum(dim=1)
    rows = torch.nonzero(is_cut_B & ~torch.isneginf(last_B1[:, 0])).ravel()
    if len(rows):
        values, items = torch.sort(masked_BI[rows], dim=1, descending=True, stable=True)
        values_Bk[rows], items_Bk[rows] = values[:, :width], items[:, :width]
    order = torch.argsort(items_Bk, dim=1, stable=True)
    values_Bk, items_Bk = values_Bk.gather(1, order), items_Bk.gather(1, order)
    order = torch.argsort(values_Bk, dim=1, descending=True, stable=True)
    values_Bk, items_Bk = values_Bk.gather(1, order), items_Bk.gather(1, order)
    items_Bk = items_Bk.masked_fill(torch.isneginf(values_Bk), NO_ITEM)
    if width < k:
        pad = (0, k - width)
        items_Bk = torch.nn.functional.pad(items_Bk, pad, value=NO_ITEM)
        values_Bk = torch.nn.functional.pad(values_Bk, pad, value=-torch.inf)
    return items_Bk, values_Bk
