"""The best k of a row of scores: the one definition of a list, served and evaluated alike.

Equal scores go to the lower index, so that a list is the same on every machine and for every way of computing it.

Legend of shape suffixes: B users, I items, k length of a list, C candidates of a user.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.model.histories import Histories

NO_ITEM = -1
_GROUP = 64  # items whose maximum is looked at before they are


def top_k(
    scores_BI: Tensor, *, k: int, histories: Histories | None = None, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """-> items (B, k) int64, best first, and their scores (B, k); NO_ITEM and -inf where fewer are left.

    `histories` are masked (items the user has seen), and so is every item where `allowed` (I,) is false; an item whose
    score is -inf is never listed. The caller's scores stay as they are.
    """
    if histories is not None or allowed is not None:
        scores_BI = scores_BI.clone()
    if histories is not None:
        scores_BI[histories.user_of_entry, histories.items] = -torch.inf
    if allowed is not None:
        scores_BI[:, ~allowed] = -torch.inf
    width = min(k, scores_BI.shape[1])
    values_Bk, items_Bk = _best(scores_BI, width) if width else (scores_BI[:, :0], scores_BI[:, :0].long())
    items_Bk = _order_equals(values_Bk, items_Bk).masked_fill(torch.isneginf(values_Bk), NO_ITEM)
    if width < k:
        pad = (0, k - width)
        items_Bk = torch.nn.functional.pad(items_Bk, pad, value=NO_ITEM)
        values_Bk = torch.nn.functional.pad(values_Bk, pad, value=-torch.inf)
    return items_Bk, values_Bk


def _best(scores_BI: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """-> values (B, k) downwards and items (B, k); of items equal to the last, the lowest.

    Maxima of groups of items are ranked first: only k groups can hold one of the k best, so a row is read once and
    never sorted.
    """
    num_users, num_items = scores_BI.shape
    num_groups = num_items // _GROUP
    item_I = torch.arange(num_items, device=scores_BI.device)
    found_BC, candidates_BC = scores_BI, item_I.expand(num_users, -1)
    if num_groups > k:
        split = num_groups * _GROUP
        maxima_Bg, groups_Bg = _group_maxima(scores_BI[:, :split], num_groups).topk(k + 1, dim=1)
        members_G = item_I[:split:num_groups]
        rest_BR = item_I[split:].expand(num_users, -1)
        candidates_BC = torch.cat([(groups_Bg[:, :k, None] + members_G).flatten(1), rest_BR], dim=1)
        found_BC = scores_BI.gather(1, candidates_BC)
    values_Bk, places_Bk = found_BC.topk(k, dim=1)
    items_Bk = candidates_BC.gather(1, places_Bk)

    # Which of the last's equals are among the k best was torch's choice, where there are more of them.
    last_B1 = values_Bk[:, -1:]
    is_cut_B = (found_BC == last_B1).sum(dim=1) > (values_Bk == last_B1).sum(dim=1)
    if num_groups > k:
        # The best group that was not looked into may hold an equal, too: rare, so such rows are read whole.
        is_open_B = maxima_Bg[:, k] == last_B1[:, 0]
        is_cut_B &= ~is_open_B
        _take_lowest(items_Bk, values_Bk, scores_BI, item_I.expand(num_users, -1), is_open_B)
    _take_lowest(items_Bk, values_Bk, found_BC, candidates_BC, is_cut_B)
    return values_Bk, items_Bk


def _take_lowest(
    items_Bk: Tensor, values_Bk: Tensor, scores_BC: Tensor, candidates_BC: Tensor, is_cut_B: Tensor
) -> None:
    """In the rows that are cut, the last's equals in `items_Bk` become the lowest ones of the candidates."""
    rows = torch.nonzero(is_cut_B & ~values_Bk[:, -1].isneginf()).ravel()
    if not len(rows):
        return
    last_R1 = values_Bk[rows, -1:]
    user_E, place_E = torch.nonzero(scores_BC[rows] == last_R1, as_tuple=True)
    item_E = candidates_BC[rows[user_E], place_E]
    if bool(((item_E.diff() < 0) & (user_E.diff() == 0)).any()):  # candidates come group by group
        item_E = item_E[torch.argsort(user_E * (int(item_E.max()) + 1) + item_E)]
    first_R1 = torch.searchsorted(user_E, torch.arange(len(rows), device=rows.device))[:, None]
    is_better_Rk = values_Bk[rows] > last_R1
    place_Rk = torch.arange(values_Bk.shape[1], device=rows.device) - is_better_Rk.sum(dim=1, keepdim=True)
    items_Bk[rows] = torch.where(is_better_Rk, items_Bk[rows], item_E[first_R1 + place_Rk.clamp(min=0)])


def _order_equals(values_Bk: Tensor, items_Bk: Tensor) -> Tensor:
    """Items of one list whose values run downwards, equal ones by index."""
    by_item_Bk = torch.argsort(items_Bk, dim=1, stable=True)
    by_value_Bk = torch.argsort(values_Bk.gather(1, by_item_Bk), dim=1, descending=True, stable=True)
    return items_Bk.gather(1, by_item_Bk.gather(1, by_value_Bk))


def _group_maxima(scores_BI: Tensor, num_groups: int) -> Tensor:
    """-> (B, num_groups); group g holds g, g + num_groups, g + 2 num_groups …, so that memory is read in order."""
    if scores_BI.stride(0) == 1:  # a transposed (I, B), as the path baselines make it
        return scores_BI.T.view(_GROUP, num_groups, -1).amax(dim=0).T.contiguous()
    return scores_BI.view(-1, _GROUP, num_groups).amax(dim=1)
