"""The training loop: batches of users against all items that compete, early stopping in time, checkpoints an epoch.

The counted terms stand as fixed base logits beneath the similarity: what they say is not learnt again.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from components.core.errors import SettingsError, StopError
from components.core.sections import ContrastView, LossName, NegativeSampling, Precision, TrainSettings
from components.model.attributes import ItemAttributes
from components.model.contrast import EdgeDropper
from components.model.recommender import Recommender
from components.model.sampled_losses import NegativeSampler
from components.train.accumulation import Accumulator, RandomState
from components.train.batches import RATING_LOSSES, Batch, Drawing, part_loss
from components.train.checkpoint import Checkpoints
from components.train.ranks import Ranks
from components.train.refusals import cause_of_no_number
from components.train.views import ContrastTerm
from components.train.windows import TrainingWindow

log = logging.getLogger(__name__)

# Up to as many competing items 'auto' looks at all. `python -m benchmarks.training losses`: a step over all of them
# costs 1.2 times one over 2,048 draws at 10,000 items, 1.1 at 100,000 and 1.3 at 300,000, the largest size measured,
# since the convolution is most of either; and it teaches more.
FULL_SOFTMAX_ITEMS = 300_000
DEFAULT_NEGATIVES = {"sampled_softmax": 2048, "bpr": 4}
NEGATIVE_POWER = {"uniform": 0.0, "popularity": 0.5}
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How to train; the fields are those of `TrainSettings`."""

    learning_rate: float
    warmup_share: float = 0.0
    weight_decay: float
    temperature: float
    batch_users: int
    max_epochs: int
    patience: int
    history_dropout: float
    id_dropout: float
    seed: int
    loss: LossName = "auto"
    negatives: int | None = None
    negative_sampling: NegativeSampling = "popularity"
    contrast_weight: float = 0.0
    contrast_view: ContrastView = "noise"
    contrast_strength: float = 0.1
    contrast_temperature: float = 0.2
    micro_batch_users: int | None = None
    precision: Precision = "auto"

    @classmethod
    def of(cls, settings: TrainSettings) -> LoopConfig:
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


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
    checkpoints: Checkpoints | None = None,
    feature_names: Sequence[str] = (),
) -> list[Epoch]:
    """Train in place and leave the best epoch's weights in `model`.

    Args:
        bases: `base_logits` (B, C) of each window, what the score holds besides the similarity, or one row (1, C) for
            all users, such as log popularity; None: nothing.
        validate: called after each epoch, higher is better; None runs all epochs and keeps the last.
        stop_after: epochs to run of the `max_epochs` that the learning rate is planned for.
        on_epoch: called after each epoch, those that a checkpoint brought back included.
        checkpoints: where the state is kept after each epoch, and taken up again; the result is that of one go.
        feature_names: of the columns of `statistics_BF`, to name in an error.

    Raises:
        StopError: the loss is not a number, or one user at a time does not fit into memory.
        SettingsError: the loss needs ratings, and no window has any.
    """
    run = _Run(model, windows, attributes, config, bases, checkpoints, feature_names)
    run.resume()
    for epoch in run.epochs:
        on_epoch(epoch)
    while len(run.epochs) < (stop_after or config.max_epochs) and run.since_best < config.patience:
        loss = run.epoch()
        model.eval()
        epoch = run.finish(loss, validate)
        on_epoch(epoch)
    if run.best_state is not None:
        model.load_state_dict(run.best_state)
    model.eval()
    return run.epochs


def rate_share(step: int, total_steps: int, warmup_share: float) -> float:
    """Share of the learning rate at a step: a line down to 2 %, under a line up over the first steps."""
    falling = max(1 - step / total_steps, 0.02)
    return falling * min(1.0, (step + 1) / max(warmup_share * total_steps, 1))


class _Run:
    """Everything that changes while a model is trained."""

    def __init__(
        self,
        model: Recommender,
        windows: Sequence[TrainingWindow],
        attributes: ItemAttributes,
        config: LoopConfig,
        bases: Sequence[Tensor | None],
        checkpoints: Checkpoints | None,
        feature_names: Sequence[str],
    ) -> None:
        self.device = next(model.parameters()).device
        self.model, self.windows, self.bases, self.config = model, windows, bases, config
        self.attributes = attributes.to(self.device)
        self.checkpoints, self.feature_names = checkpoints, feature_names
        self.ranks = Ranks.here()
        self.generator = torch.Generator().manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.dtype = products_dtype(config.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.scaler.scale(torch.ones((), device=self.device))  # it makes its factor at the first call
        self.loss_name = chosen_loss(config.loss, windows)
        self.drawing = Drawing(
            loss=self.loss_name,
            history_dropout=config.history_dropout,
            id_dropout=config.id_dropout,
            num_negatives=config.negatives or DEFAULT_NEGATIVES.get(self.loss_name, 0),
            draws_views=config.contrast_weight > 0,
        )
        self.samplers = [self._sampler(window) for window in windows]
        self.accumulator = Accumulator(
            micro_batch_users=config.micro_batch_users,
            part_loss=self._part_loss,
            item_loss=self._contrast() if config.contrast_weight > 0 else None,
        )
        batches_per_epoch = sum(math.ceil(len(window) / config.batch_users) for window in windows)
        self.total_steps = batches_per_epoch * config.max_epochs
        self.step = 0
        self.epochs: list[Epoch] = []
        self.best, self.since_best = -math.inf, 0
        self.best_state: dict[str, Tensor] | None = None

    def epoch(self) -> float:
        """One pass over all users of all windows -> the mean loss of its steps."""
        config = self.config
        self.model.train()
        plan = [
            (which, rows)
            for which, window in enumerate(self.windows)
            for rows in torch.split(torch.randperm(len(window), generator=self.generator), config.batch_users)
        ]
        total_loss = 0.0
        for number, index in enumerate(torch.randperm(len(plan), generator=self.generator).tolist(), start=1):
            which, rows = plan[index]
            batch = self.drawing.batch(
                self.windows[which], self.bases[which], rows, sampler=self.samplers[which], generator=self.generator
            )
            total_loss += self._step(batch, number)
        return total_loss / max(len(plan), 1)

    def finish(self, loss: float, validate: Callable[[Recommender], float] | None) -> Epoch:
        """Judge the epoch that has just run, and keep its state."""
        number = len(self.epochs) + 1
        score = float(number)
        if validate is not None:
            score = self.ranks.told(validate(self.model) if self.ranks.is_first else None, self.device)
        self._count(Epoch(number=number, loss=loss, validation=score))
        if self.since_best == 0:
            self.best_state = copy.deepcopy(self.model.state_dict())
        self._save()
        return self.epochs[-1]

    def resume(self) -> None:
        """Take up the state of the last whole epoch, if one was kept."""
        found = self.checkpoints.load() if self.checkpoints is not None and self.ranks.is_first else None
        facts = self.ranks.told(None if found is None else found[1], self.device)
        if facts is None:
            return
        tensors = self.ranks.given({} if found is None else found[0], self.device)
        self.model.load_state_dict(_under("model.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            place, _, kind = name.partition(".")
            moments.setdefault(int(place), {})[kind] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.generator.set_state(tensors["generator"])
        RandomState(tensors["random.cpu"], tensors.get("random.cuda")).restore(self.device)
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        self.accumulator.micro_batch_users = facts["micro_batch_users"]
        self.step = facts["step"]
        for loss, validation in facts["epochs"]:
            self._count(Epoch(number=len(self.epochs) + 1, loss=float(loss), validation=float(validation)))
        best = _under("best.", tensors) or (_under("model.", tensors) if self.since_best == 0 else {})
        self.best_state = {name: tensor.to(self.device) for name, tensor in best.items()} or None
        log.info("Training goes on after epoch %d, from %s.", len(self.epochs), self.checkpoints)

    def _save(self) -> None:
        if self.checkpoints is None or not self.ranks.is_first:
            return
        chance = RandomState.now(self.device)
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {"generator": self.generator.get_state(), "random.cpu": chance.cpu}
        if chance.cuda is not None:
            tensors["random.cuda"] = chance.cuda
        for place, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{place}.{kind}": value for kind, value in state.items()}
        if self.since_best and self.best_state is not None:
            tensors |= {f"best.{name}": tensor for name, tensor in self.best_state.items()}
        facts = {
            "step": self.step,
            # As text: a validation may be no number, which JSON has no word for.
            "epochs": [[repr(epoch.loss), repr(epoch.validation)] for epoch in self.epochs],
            "scaler": self.scaler.state_dict(),
            "micro_batch_users": self.accumulator.micro_batch_users,
        }
        self.checkpoints.save(tensors, facts, epoch=len(self.epochs))

    def _count(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        if epoch.validation > self.best:
            self.best, self.since_best = epoch.validation, 0
        else:
            self.since_best += 1

    def _step(self, batch: Batch, number: int) -> float:
        rate = self.config.learning_rate * rate_share(self.step, self.total_steps, self.config.warmup_share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        factor = self.scaler.get_scale()
        loss = self.accumulator.backward(self.model, batch if factor == 1 else batch.scaled(factor), self.attributes)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        # A scaled gradient may overflow: the scaler leaves the step out and scales less.
        if not torch.isfinite(loss) or not (torch.isfinite(norm) or self.scaler.is_enabled()):
            raise StopError(self._no_number(loss, batch, number))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return loss.item() / factor

    def _no_number(self, loss: Tensor, batch: Batch, number: int) -> str:
        what = f"The loss became {loss.item()}" if not torch.isfinite(loss) else "The gradient became infinite"
        cause = cause_of_no_number(self.model, batch, self.feature_names)
        kept = ""
        if self.checkpoints is not None and self.epochs:
            kept = f" The state after epoch {len(self.epochs)} is kept under {self.checkpoints.uri}."
        return f"{what} in epoch {len(self.epochs) + 1}, step {number}: {cause}{kept}"

    def _part_loss(self, user_bD: Tensor, target_CD: Tensor, part: Batch) -> Tensor:
        return part_loss(
            self.loss_name,
            user_bD,
            target_CD,
            part,
            temperature=self.config.temperature,
            matmul_dtype=self.dtype,
        )

    def _sampler(self, window: TrainingWindow) -> NegativeSampler | None:
        if self.loss_name not in DEFAULT_NEGATIVES:
            return None
        users_C = window.item_degree_I[window.candidates_C]
        return NegativeSampler.of(users_C, power=NEGATIVE_POWER[self.config.negative_sampling])

    def _contrast(self) -> Callable[[Batch], Tensor]:
        config = self.config
        term = ContrastTerm(
            weight=config.contrast_weight,
            view=config.contrast_view,
            strength=config.contrast_strength,
            temperature=config.contrast_temperature,
        )
        droppers: dict[int, EdgeDropper] = {}

        def loss(batch: Batch) -> Tensor:
            key = id(batch.window)
            if key not in droppers:
                droppers[key] = EdgeDropper(batch.window.graph)
            return term.loss(self.model, self.attributes, batch, droppers[key])

        return loss


def chosen_loss(name: LossName, windows: Sequence[TrainingWindow]) -> LossName:
    """What 'auto' stands for here; a loss that the windows cannot feed is refused."""
    if name in RATING_LOSSES and any(window.ratings is None for window in windows):
        raise SettingsError(
            f"train.loss is '{name}', which learns from explicit ratings, and a window of the log holds none. Give the "
            "log a column 'rating' (docs/data-contract.md), or set train.loss to 'auto'."
        )
    if name != "auto":
        return name
    competing = max(len(window.candidates_C) for window in windows)
    return "full_softmax" if competing <= FULL_SOFTMAX_ITEMS else "sampled_softmax"


def products_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Of the products of users and items."""
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return matmul_dtype(device) if precision == "auto" else named[precision]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def matmul_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it natively."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else torch.float32
