"""Gradients of a batch, some users at a time: as many as memory holds, with the sum of the whole batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from components.core.errors import StopError
from components.model.attributes import ItemAttributes
from components.model.recommender import Recommender
from components.train.batches import Batch
from components.train.ranks import Ranks

log = logging.getLogger(__name__)

# (unit vectors of the part's users, of the competing items, the part) -> scalar
PartLoss = Callable[[Tensor, Tensor, Batch], Tensor]
# (the batch) -> scalar that depends on item vectors alone
ItemLoss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class RandomState:
    """Of torch's own generators, which dropout inside a network reads."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    def restore(self, device: torch.device) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)


class Accumulator:
    """Adds up gradients over parts of a batch, and halves the parts when memory runs out."""

    def __init__(self, *, micro_batch_users: int | None, part_loss: PartLoss, item_loss: ItemLoss | None) -> None:
        """`micro_batch_users` None: the whole batch at once."""
        self.micro_batch_users = micro_batch_users
        self._part_loss = part_loss
        self._item_loss = item_loss

    def backward(self, model: Recommender, batch: Batch, attributes: ItemAttributes) -> Tensor:
        """Leave the gradients of the batch, over all ranks, in the parameters -> its loss, a scalar.

        Raises:
            StopError: not even one user at a time fits into memory.
        """
        device = batch.has_id_I.device
        chance = RandomState.now(device)
        ranks = Ranks.here()
        mine = ranks.share(len(batch))
        while True:
            users = max(1, min(self.micro_batch_users or len(batch), len(batch)))
            try:
                loss = self._backward(model, batch, attributes, mine=mine, users=users, ranks=ranks)
                break
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Outside of the handler, whose traceback holds what filled the memory.
            if users == 1:
                raise StopError(
                    "One user at a time does not fit into memory. Lower train.embedding_dim, graph.neighbours_per_item "
                    "or train.negatives, or train where there is more of it."
                )
            self.micro_batch_users = (users + 1) // 2
            log.warning("Out of memory with %d users at a time; going on with %d.", users, self.micro_batch_users)
            model.zero_grad(set_to_none=True)
            chance.restore(device)
            if device.type == "cuda":
                torch.cuda.empty_cache()
        ranks.sum_gradients(model.parameters())
        return ranks.sum(loss)

    def _backward(
        self,
        model: Recommender,
        batch: Batch,
        attributes: ItemAttributes,
        *,
        mine: slice,
        users: int,
        ranks: Ranks,
    ) -> Tensor:
        window = batch.window
        model.user_vector.item_degree_I.copy_(window.item_degree_I)
        history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=batch.has_id_I)
        target_CD = target_ID[window.candidates_C]
        # Items go through the graph once a batch: the parts' gradients meet in these leaves first.
        history_leaf, target_leaf = (vectors.detach().requires_grad_() for vectors in (history_ID, target_CD))
        loss = history_ID.new_zeros(())
        for start in range(mine.start, mine.stop, users):
            part = batch.part(slice(start, min(start + users, mine.stop)))
            user_bD = model.user_vectors(part.histories, window.statistics_BF[part.rows], history_leaf)
            part_loss = self._part_loss(user_bD, target_leaf, part)
            torch.autograd.backward(part_loss)
            loss += part_loss.detach()
        roots = [history_ID, target_CD]
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (history_leaf, target_leaf)]
        if self._item_loss is not None:
            # Every rank draws the same; summed over ranks the term counts once.
            item_loss = self._item_loss(batch) * (batch.factor / ranks.size)
            if item_loss.requires_grad:  # a batch of one item has nothing to set apart
                roots, gradients = [*roots, item_loss], [*gradients, torch.ones_like(item_loss)]
                loss += item_loss.detach()
        torch.autograd.backward(roots, gradients)
        return loss


def _is_out_of_memory(error: BaseException) -> bool:
    """torch says it in words alone where the processor's own memory runs out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return any(words in said for words in ("out of memory", "not enough memory", "can't allocate memory"))
