"""Losses over sampled negatives: softmax with the logQ correction, and BPR.

Both take the fixed base logits that the full softmax takes: what the counted terms say already is not learnt again.

Legend of shape suffixes: B users, D dimensions, I items, N shared negatives, M target entries, K negatives an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from components.model.losses import Targets

# (rows (n,), items (n,)) -> (n,): the fixed logits of single pairs; -inf leaves an item out
PairBase = Callable[[Tensor, Tensor], Tensor]
# (items (N,)) -> (B, N): those of all users and some items
ItemBase = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Negatives:
    """Items drawn for all users of a step alike."""

    items: Tensor  # (N,) int64, positions in the scored item list; an item may stand more than once
    log_expected: Tensor  # (N,) float32, log of how often the item was expected among the N


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items with a fixed probability each."""

    probabilities_I: Tensor  # (I,) float64 on the CPU, sums to 1

    @classmethod
    def of(cls, popularity_I: Tensor, *, power: float) -> NegativeSampler:
        """An item is drawn in proportion to (1 + popularity)^power; power 0 draws all alike."""
        mass_I = (popularity_I.detach().cpu().double().clamp(min=0) + 1) ** power
        return cls(mass_I / mass_I.sum())

    def shared(self, count: int, *, generator: torch.Generator) -> Negatives:
        """`count` independent draws."""
        items_N = self._draw(count, generator)
        return Negatives(items_N, (self.probabilities_I[items_N] * count).log().float())

    def for_entries(self, entries: int, count: int, *, generator: torch.Generator) -> Tensor:
        """(M, K) int64: draws of its own for each target."""
        return self._draw(entries * count, generator).view(entries, count)

    @cached_property
    def _cumulative_I(self) -> Tensor:
        return self.probabilities_I.cumsum(0)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        # Inverse of the distribution function: torch.multinomial stops at 2^24 items.
        points = torch.rand(count, dtype=torch.float64, generator=generator) * self._cumulative_I[-1]
        return torch.searchsorted(self._cumulative_I, points, right=True).clamp(max=len(self.probabilities_I) - 1)


def sampled_softmax_loss(
    user_BD: Tensor,
    target_ID: Tensor,
    targets: Targets,
    *,
    negatives: Negatives,
    base_of_items: ItemBase | None = None,
    base_of_pairs: PairBase | None = None,
    matmul_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """-> scalar: full softmax with an estimate of each user's normaliser (Bengio & Senécal 2008; logQ: Yi et al. 2019).

    Z_u ≈ Σ_{i in T_u} exp(s_ui) + Σ_{sampled j not in T_u} exp(s_uj - log E[times j is drawn]). Its expectation is the
    full sum, since a user's own targets (accidental hits among the negatives) are counted once and exactly. With every
    item drawn once it is the full softmax.
    """
    num_users, num_items = len(user_BD), len(target_ID)
    row_M, item_M = targets.user_of_entry, targets.items
    taken_M = (user_BD[row_M] * target_ID[item_M]).sum(dim=1).float()
    if base_of_pairs is not None:
        taken_M = taken_M + base_of_pairs(row_M, item_M).float()
    drawn_ND = target_ID[negatives.items]
    drawn_BN = (user_BD.to(matmul_dtype) @ drawn_ND.to(matmul_dtype).T).float()
    if base_of_items is not None:
        drawn_BN = drawn_BN + base_of_items(negatives.items).float()
    drawn_BN = drawn_BN - negatives.log_expected
    drawn_BN = drawn_BN.masked_fill(_hits(row_M, item_M, negatives.items, num_users, num_items), -torch.inf)

    # A target may stand twice for a user; in the normaliser it stands once.
    pair_M = row_M * num_items + item_M
    is_first_M = _is_first(pair_M)
    highest_B = drawn_BN.detach().amax(dim=1)
    highest_B = highest_B.scatter_reduce(0, row_M, taken_M.detach(), reduce="amax").clamp(min=-1e30)
    total_B = (drawn_BN - highest_B[:, None]).exp().sum(dim=1)
    own_M = (taken_M - highest_B[row_M]).exp() * is_first_M
    total_B = total_B.index_add(0, row_M, own_M)
    normaliser_B = highest_B + total_B.log()
    return (targets.weights * (normaliser_B[row_M] - taken_M)).sum()


def bpr_loss(
    user_BD: Tensor,
    target_ID: Tensor,
    targets: Targets,
    *,
    negatives_MK: Tensor,
    base_of_pairs: PairBase | None = None,
) -> Tensor:
    """-> scalar: -Σ_m w_m mean_k log σ(s_um - s_uk) (Rendle et al. 2009).

    Draws that the user took, or that the base leaves out, teach nothing. `negatives_MK` has K items of each target.
    """
    num_items = len(target_ID)
    row_M, item_M = targets.user_of_entry, targets.items
    num_drawn = negatives_MK.shape[1]
    row_P, drawn_P = row_M.repeat_interleave(num_drawn), negatives_MK.reshape(-1)
    taken_M = (user_BD[row_M] * target_ID[item_M]).sum(dim=1).float()
    score_P = (user_BD[row_P] * target_ID[drawn_P]).sum(dim=1).float()
    counts_P = ~torch.isin(row_P * num_items + drawn_P, row_M * num_items + item_M)
    if base_of_pairs is not None:
        fixed_P = base_of_pairs(row_P, drawn_P).float()
        counts_P &= torch.isfinite(fixed_P)
        score_P = score_P + fixed_P.masked_fill(~counts_P, 0)
        taken_M = taken_M + base_of_pairs(row_M, item_M).float()
    margin_P = taken_M.repeat_interleave(num_drawn) - score_P
    weight_P = targets.weights.repeat_interleave(num_drawn) * counts_P / num_drawn
    return -(weight_P * F.logsigmoid(margin_P)).sum()


def _hits(row_M: Tensor, item_M: Tensor, drawn_N: Tensor, num_users: int, num_items: int) -> Tensor:
    """(B, N) bool: the draw is a target of the user."""
    ordered, place_N = drawn_N.sort()
    low = torch.searchsorted(ordered, item_M)
    count_M = torch.searchsorted(ordered, item_M, right=True) - low
    row = row_M.repeat_interleave(count_M)
    starts = (count_M.cumsum(0) - count_M).repeat_interleave(count_M)
    offset = torch.arange(len(row), device=row.device) - starts
    hits_BN = torch.zeros(num_users, len(drawn_N), dtype=torch.bool, device=drawn_N.device)
    hits_BN[row, place_N[low.repeat_interleave(count_M) + offset]] = True
    return hits_BN


def _is_first(key_M: Tensor) -> Tensor:
    """(M,) bool: no earlier entry has this key."""
    ordered, place_M = key_M.sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    out = torch.empty_like(first)
    out[place_M] = first
    return out
