"""The training loop: full softmax over the candidates, counted terms as fixed base logits, early stopping in time."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from components.core.errors import StopError
from components.model.attributes import ItemAttributes
from components.model.losses import full_softmax_loss
from components.model.recommender import Recommender
from components.train.windows import TrainingWindow, softmax_targets

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How to train; the fields are those of `TrainSettings`."""

    learning_rate: float
    weight_decay: float
    temperature: float
    batch_users: int
    max_epochs: int
    patience: int
    history_dropout: float
    id_dropout: float
    seed: int


@dataclass(frozen=True)
class Epoch:
    number: int
    loss: float
    validation: float


def train(
    model: Recommender,
    windows: Sequence[TrainingWindow],
    attributes: ItemAttributes,
    *,
    config: LoopConfig,
    bases: Sequence[Tensor | None],
    validate: Callable[[Recommender], float] | None,
    stop_after: int | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train in place and leave the best epoch's weights in `model`.

    Args:
        bases: `base_logits` (B, C) of each window, what the score holds besides the similarity, or one row (1, C) for
            all users, such as log popularity; None: nothing.
        validate: called after each epoch, higher is better; None runs all epochs and keeps the last.
        stop_after: epochs to run of the `max_epochs` that the learning rate is planned for.

    Raises:
        StopError: the loss is not a number.
    """
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
    )
    batches_per_epoch = sum(math.ceil(len(window) / config.batch_users) for window in windows)
    total_steps = batches_per_epoch * config.max_epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(1 - step / total_steps, 0.02))
    attributes = attributes.to(next(model.parameters()).device)
    dtype = matmul_dtype(next(model.parameters()).device)

    epochs: list[Epoch] = []
    best, best_state, since_best = -math.inf, None, 0
    for number in range(1, (stop_after or config.max_epochs) + 1):
        model.train()
        total_loss, num_batches = 0.0, 0
        plan = [
            (which, rows)
            for which, window in enumerate(windows)
            for rows in torch.split(torch.randperm(len(window), generator=generator), config.batch_users)
        ]
        for index in torch.randperm(len(plan), generator=generator).tolist():
            which, rows = plan[index]
            loss = _step_loss(model, windows[which], attributes, rows, bases[which], config, dtype, generator)
            if not torch.isfinite(loss):
                raise StopError(
                    f"The loss became {loss.item()} in epoch {number}. Lower train.learning_rate or check the features."
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total_loss, num_batches = total_loss + loss.item(), num_batches + 1
        model.eval()
        score = validate(model) if validate is not None else float(number)
        epoch = Epoch(number=number, loss=total_loss / max(num_batches, 1), validation=score)
        epochs.append(epoch)
        on_epoch(epoch)
        if score > best:
            best, best_state, since_best = score, copy.deepcopy(model.state_dict()), 0
        else:
            since_best += 1
            if since_best >= config.patience:
                break
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    return epochs


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


def matmul_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it natively."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else torch.float32


def _step_loss(
    model: Recommender,
    window: TrainingWindow,
    attributes: ItemAttributes,
    rows: Tensor,
    base_BC: Tensor | None,
    config: LoopConfig,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Tensor:
    device = window.item_degree_I.device
    rows = rows.to(device)
    model.user_vector.item_degree_I.copy_(window.item_degree_I)
    # Items lose their id vector at random, so that content learns to stand alone for cold ones.
    kept_id = torch.rand(len(window.has_id_I), generator=generator) >= config.id_dropout
    has_id_I = window.has_id_I & kept_id.to(device)
    history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=has_id_I)
    histories = window.histories.rows(rows)
    kept = torch.rand(len(histories.items), generator=generator) >= config.history_dropout
    user_BD = model.user_vectors(histories.keep(kept.to(device)), window.statistics_BF[rows], history_ID)
    targets = softmax_targets(window.new_targets.rows(rows))

    def base(chunk: slice) -> Tensor:
        assert base_BC is not None
        return base_BC[rows[chunk]].float()

    user_BD, target_CD = user_BD / config.temperature, target_ID[window.candidates_C]
    if base_BC is not None and len(base_BC) == 1:
        # The same for every user: one more column of the product instead of a matrix to add. Halfway between its ends
        # it is smallest, so that the narrow type keeps most of it.
        shifted_C1 = (base_BC[0].float() - (base_BC.max() + base_BC.min()).float() / 2)[:, None]
        user_BD, target_CD = F.pad(user_BD, (0, 1), value=1.0), torch.cat([target_CD, shifted_C1], dim=1)
        base_BC = None
    return full_softmax_loss(user_BD, target_CD, targets, base=None if base_BC is None else base, matmul_dtype=dtype)
