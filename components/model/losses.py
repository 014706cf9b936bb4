"""Full softmax over all items, its gradient written by hand so that memory stays at one chunk of users.

L = -Σ_u Σ_i y_ui log softmax_i(base_ui + u·t_i). What else the score holds (the filter, popularity, …) enters as
fixed base logits: the graph convolution then learns what those terms leave unsaid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 8_000_000  # 32 MB of float32 at a time


@dataclass(frozen=True)
class Targets:
    """Weighted target items of B users, compressed rows; positions in the scored item list."""

    indptr: Tensor  # (B+1,) int64
    items: Tensor  # (M,) int64
    weights: Tensor  # (M,) float32; the whole batch sums to 1 where the loss is a mean


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
        grad_user_BD = torch.empty_like(user_BD, dtype=torch.float32)
        grad_target_ID = torch.zeros_like(target_ID, dtype=torch.float32)
        user_low, target_low = user_BD.to(matmul_dtype), target_ID.to(matmul_dtype)
        loss = user_BD.new_zeros((), dtype=torch.float32)
        step = max(1, CHUNK_LOGITS // max(num_items, 1))
        for start in range(0, num_users, step):
            rows = slice(start, min(start + step, num_users))
            logits = (user_low[rows] @ target_low.T).float()
            if base is not None:
                logits += base(rows)
            first, last = int(targets.indptr[rows.start]), int(targets.indptr[rows.stop])
            lengths = targets.indptr[rows.start + 1 : rows.stop + 1] - targets.indptr[rows.start : rows.stop]
            row_M = torch.repeat_interleave(torch.arange(len(lengths), device=logits.device), lengths)
            item_M, weight_M = targets.items[first:last], targets.weights[first:last]
            mass_b = logits.new_zeros(len(lengths)).index_add_(0, row_M, weight_M)
            normaliser_b = torch.logsumexp(logits, dim=1)
            loss += (mass_b * normaliser_b).sum() - (weight_M * logits[row_M, item_M]).sum()
            # The gradient in the logits takes their place: mass * softmax - y.
            grad = torch.exp_(logits.sub_(normaliser_b[:, None])).mul_(mass_b[:, None])
            grad.view(-1).index_add_(0, row_M * num_items + item_M, -weight_M)
            low = grad.to(matmul_dtype)
            grad_user_BD[rows] = (low @ target_low).float()
            grad_target_ID += (low.T @ user_low[rows]).float()
        ctx.save_for_backward(grad_user_BD, grad_target_ID)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_user_BD, grad_target_ID = ctx.saved_tensors
        return grads[0] * grad_user_BD, grads[0] * grad_target_ID, None, None, None
