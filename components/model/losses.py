"""Full softmax over all items, its gradient written by hand so that memory stays at one chunk of users.

L = -Σ_u Σ_i y_ui log softmax_i(base_ui + u·t_i). What else the score holds (the filter, popularity, …) enters as
fixed base logits: the graph convolution then learns what those terms leave unsaid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from components.model.histories import row_of_entry

CHUNK_LOGITS = 8_000_000  # 32 MB of float32 at a time


@dataclass(frozen=True)
class Targets:
    """Weighted target items of B users, compressed rows; positions in the scored item list."""

    indptr: Tensor  # (B+1,) int64
    items: Tensor  # (M,) int64
    weights: Tensor  # (M,) float32; the whole batch sums to 1 where the loss is a mean

    @cached_property
    def user_of_entry(self) -> Tensor:
        """(M,) int64 row of each entry."""
        return row_of_entry(self.indptr)


def full_softmax_loss(
    user_BD: Tensor,
    target_ID: Tensor,
    targets: Targets,
    *,
    base: Callable[[slice], Tensor] | None = None,
    matmul_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """-> scalar. `base(rows)` gives the (b, I) fixed logits of a chunk of users; -inf leaves an item out."""
    loss: Tensor = _FullSoftmax.apply(user_BD, target_ID, targets, base, matmul_dtype)  # type: ignore[no-untyped-call]  # torch types apply so
    return loss


class _FullSoftmax(torch.autograd.Function):
    """Four passes over a chunk's logits: product, exp in place, and the two products of the gradient.

    Neither a maximum nor the softmax itself is ever written: exp(logit - bound) cannot overflow, its row sums come out
    of the gradient's product by a column of ones, and 1 / sum scales the narrow factors instead of the wide matrix. The
    targets' own part of the gradient is a handful of rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        user_BD: Tensor,
        target_ID: Tensor,
        targets: Targets,
        base: Callable[[slice], Tensor] | None,
        matmul_dtype: torch.dtype,
    ) -> Tensor:
        num_users, num_items = len(user_BD), len(target_ID)
        user, target = user_BD.detach().float(), target_ID.detach().float()
        grad_user_BD, grad_target_ID = torch.zeros_like(user), torch.zeros_like(target)
        user_low, target_low = user.to(matmul_dtype), target.to(matmul_dtype)
        summing_IE = torch.cat([target_low, target_low.new_ones(num_items, 1)], dim=1)
        mass_B = user.new_zeros(num_users).index_add_(0, targets.user_of_entry, targets.weights)
        # |u| |t| bounds a product; below 60 its exp is far from the largest float even as a sum over all items.
        bound = float(user.norm(dim=1).amax() * target.norm(dim=1).amax()) if user.numel() else 0.0
        is_bounded = base is None and bound <= 60 and matmul_dtype != torch.float16
        loss = user.new_zeros(())
        step = max(1, CHUNK_LOGITS // max(num_items, 1))
        for start in range(0, num_users, step):
            rows = slice(start, min(start + step, num_users))
            logits = user_low[rows] @ target_low.T
            first, last = int(targets.indptr[rows.start]), int(targets.indptr[rows.stop])
            row_M = targets.user_of_entry[first:last] - rows.start
            item_M, weight_M = targets.items[first:last], targets.weights[first:last]
            taken_M = (user[rows][row_M] * target[item_M]).sum(dim=1)
            shift_b = logits.new_zeros(len(logits), dtype=torch.float32)
            if not is_bounded:
                logits = logits.float()
                if base is not None:
                    fixed = base(rows)
                    logits += fixed
                    taken_M += fixed[row_M, item_M]
                # A user to whom no item is left, which is possible where nothing new was taken, is no number's fault.
                shift_b = logits.amax(dim=1).nan_to_num(neginf=0.0)
                logits -= shift_b[:, None]
            exponential = logits.exp_().to(matmul_dtype)
            summed = (exponential @ summing_IE).float()
            total_b = summed[:, -1].clamp(min=torch.finfo(torch.float32).tiny)
            loss += (mass_B[rows] * (shift_b + total_b.log())).sum() - (weight_M * taken_M).sum()
            scale_b = mass_B[rows] / total_b
            grad_user_BD[rows] = summed[:, :-1] * scale_b[:, None]
            grad_user_BD[rows].index_add_(0, row_M, target[item_M] * -weight_M[:, None])
            grad_target_ID += exponential.T @ (user[rows] * scale_b[:, None]).to(matmul_dtype)
            grad_target_ID.index_add_(0, item_M, user[rows][row_M] * -weight_M[:, None])
        ctx.save_for_backward(grad_user_BD, grad_target_ID)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_user_BD, grad_target_ID = ctx.saved_tensors
        return grads[0] * grad_user_BD, grads[0] * grad_target_ID, None, None, None
