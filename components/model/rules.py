"""A merchandiser's rules at ranking time: two items that never stand in one list.

The better of the two stays, the other is left out and the next best moves up. The rule looks at a list alone: who
bought one of the two may well be offered the other. `always_with` is no filter but a relation of the item graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from components.model.histories import Histories
from components.model.ranking import NO_ITEM, top_k

NEVER_TOGETHER, ALWAYS_WITH = "never_together", "always_with"
RULES = pa.schema([(name, pa.string()) for name in ("item_id", "other_item_id", "rule")])

# Ranked lists (B, k) of the k best -> items (B, k), scores (B, k).
Ranker = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ListRules:
    """Which items exclude each other, by index in the bundle."""

    excluded_by: Mapping[int, frozenset[int]]  # both ways

    @classmethod
    def of(cls, rules: pa.Table, index: Mapping[str, int]) -> ListRules:
        """`rules` of schema RULES; rows about items that `index` lacks say nothing."""
        excluded: dict[int, set[int]] = {}
        for row in rules.to_pylist():
            one, other = index.get(row["item_id"]), index.get(row["other_item_id"])
            if row["rule"] == NEVER_TOGETHER and one is not None and other is not None and one != other:
                excluded.setdefault(one, set()).add(other)
                excluded.setdefault(other, set()).add(one)
        return cls({item: frozenset(others) for item, others in excluded.items()})

    def __bool__(self) -> bool:
        return bool(self.excluded_by)

    def allowed(self, items_Bk: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(B, k) ranked lists, best first -> (B, k): whether an item may stay beside the better ones that stay."""
        kept_Bk = np.ones(items_Bk.shape, dtype=bool)
        ruled = np.isin(items_Bk, np.fromiter(self.excluded_by, dtype=np.int64))
        for row in np.flatnonzero(ruled.sum(axis=1) > 1):
            barred: set[int] = set()
            for place in np.flatnonzero(ruled[row]):
                item = int(items_Bk[row, place])
                if item in barred:
                    kept_Bk[row, place] = False
                else:
                    barred |= self.excluded_by[item]
        return kept_Bk

    def ranked(self, rank: Ranker, *, k: int, num_items: int) -> tuple[Tensor, Tensor]:
        """The k best that may stand together: items (B, k) and scores (B, k), NO_ITEM and -inf where fewer are left.

        `rank` is asked for longer lists until every list is full or all items were looked at.
        """
        width = k
        while True:
            items_Bw, scores_Bw = rank(width)
            if not self:
                return items_Bw, scores_Bw
            stays_Bw = torch.from_numpy(self.allowed(items_Bw.numpy())) & (items_Bw != NO_ITEM)
            if width >= num_items or bool(((stays_Bw.sum(dim=1) >= k) | (items_Bw == NO_ITEM).any(dim=1)).all()):
                break
            width = min(width * 2, num_items)
        order = torch.argsort(~stays_Bw, dim=1, stable=True)[:, :k]
        left_out = ~stays_Bw.gather(1, order)
        items_Bk = items_Bw.gather(1, order).masked_fill(left_out, NO_ITEM)
        return items_Bk, scores_Bw.gather(1, order).masked_fill(left_out, -torch.inf)


NO_LIST_RULES = ListRules({})


def ruled_top_k(
    scores_BI: Tensor,
    rules: ListRules,
    *,
    k: int,
    histories: Histories | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`top_k` under the rules."""

    def rank(width: int) -> tuple[Tensor, Tensor]:
        return top_k(scores_BI, k=width, histories=histories, allowed=allowed)

    return rules.ranked(rank, k=k, num_items=scores_BI.shape[1])
