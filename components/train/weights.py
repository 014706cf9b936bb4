"""How much each term of the score counts: a log-linear softmax, fitted by Newton's method.

P(i | u) ∝ exp(Σ_t w_t term_t(u, i)) over the items the user could take next. The log-likelihood is concave in w and has
only as many unknowns as terms, so a handful of exact passes over some users settles it, with no learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# (rows) -> the unweighted terms of those users over C candidate items, each (b, C) or (1, C), -inf where masked
TermSource = Callable[[Tensor], Mapping[str, Tensor]]

CHUNK_USERS = 64


def fit_weights(
    source: TermSource,
    *,
    names: Sequence[str],
    mask: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    users: Tensor,
    ridge: float = 1e-3,
    passes: int = 12,
    tolerance: float = 1e-3,
) -> dict[str, float]:
    """-> name -> weight.

    Args:
        source: unweighted terms of a chunk of users.
        mask: (b, C) bool of a chunk, true where the item cannot be taken (seen, or not for sale).
        targets: (b, C) float of a chunk: what was taken, each user's row summing to 1.
        users: (n,) row numbers to learn from.
        ridge: L2 penalty a user, so that terms that say the same share their weight.
    """
    # Every pass reads the same terms, so they are computed once; half precision is finer than what they know.
    chunks = [_chunk(source, names, mask, targets, rows) for rows in torch.split(users, CHUNK_USERS)]
    weights_T = torch.zeros(len(names), dtype=torch.float64)
    last_loss = float("inf")
    step_T = torch.zeros_like(weights_T)
    for _ in range(passes):
        loss, gradient_T, hessian_TT = _moments(chunks, weights_T)
        loss += 0.5 * ridge * float(weights_T @ weights_T)
        if loss > last_loss + 1e-9:
            step_T = step_T / 2  # too far: go half the way back
            weights_T = weights_T + step_T
            continue
        if last_loss - loss < tolerance * 1e-2:
            break
        last_loss = loss
        damped = hessian_TT + ridge * torch.eye(len(names), dtype=torch.float64)
        step_T = torch.linalg.solve(damped, gradient_T + ridge * weights_T)
        weights_T = weights_T - step_T
    return dict(zip(names, weights_T.tolist(), strict=True))


@dataclass(frozen=True)
class _Chunk:
    terms_TbC: Tensor  # float16
    masked_bC: Tensor  # bool
    taken_bC: Tensor  # float32


def _chunk(
    source: TermSource,
    names: Sequence[str],
    mask: Callable[[Tensor], Tensor],
    targets: Callable[[Tensor], Tensor],
    rows: Tensor,
) -> _Chunk:
    terms, taken_bC = source(rows), targets(rows)
    stacked_TbC = torch.stack([terms[name].half().expand_as(taken_bC) for name in names])
    return _Chunk(stacked_TbC, mask(rows), taken_bC)


def _moments(chunks: Sequence[_Chunk], weights_T: Tensor) -> tuple[float, Tensor, Tensor]:
    """Mean negative log-likelihood over users, its gradient (T,) and Hessian (T, T)."""
    num_terms, count = len(weights_T), max(sum(len(chunk.taken_bC) for chunk in chunks), 1)
    loss = 0.0
    gradient_T = torch.zeros(num_terms, dtype=torch.float64)
    hessian_TT = torch.zeros(num_terms, num_terms, dtype=torch.float64)
    for chunk in chunks:
        terms_TbC = chunk.terms_TbC.float()
        logits_bC = torch.einsum("t,tbc->bc", weights_T.float().to(terms_TbC.device), terms_TbC)
        log_p_bC = torch.log_softmax(logits_bC.masked_fill_(chunk.masked_bC, -torch.inf), dim=1)
        loss -= float((chunk.taken_bC * log_p_bC.masked_fill(chunk.masked_bC, 0.0)).sum())
        p_bC = log_p_bC.exp_()
        expected_Tb = torch.einsum("bc,tbc->tb", p_bC, terms_TbC).double()
        taken_T = torch.einsum("bc,tbc->t", chunk.taken_bC, terms_TbC).double()
        gradient_T += (expected_Tb.sum(dim=1) - taken_T).cpu()
        weighted = terms_TbC.mul_(p_bC.sqrt_()).reshape(num_terms, -1)
        hessian_TT += ((weighted @ weighted.T).double() - expected_Tb @ expected_Tb.T).cpu()
    return loss / count, gradient_T / count, hessian_TT / count
