"""The self-supervised term of a batch: two views of the items that its users took."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.core.sections import ContrastView
from components.model.attributes import ItemAttributes
from components.model.contrast import EdgeDropper, info_nce_loss, noise
from components.model.encoders import ItemGraph
from components.model.recommender import Recommender
from components.train.batches import Batch

MAX_ITEMS = 2048  # compared with each other in a step; more fill memory with their square


@dataclass(frozen=True, kw_only=True)
class ContrastTerm:
    """Weight times InfoNCE between the views."""

    weight: float
    view: ContrastView
    strength: float
    temperature: float

    def loss(self, model: Recommender, attributes: ItemAttributes, batch: Batch, edges: EdgeDropper) -> Tensor:
        """-> scalar; depends on the batch's seed, not on how often it is asked."""
        assert batch.view_seed is not None
        generator = torch.Generator().manual_seed(batch.view_seed)
        taken = torch.unique(batch.targets.items)
        if len(taken) < 2:
            return torch.zeros((), device=taken.device)
        chosen = torch.randperm(len(taken), generator=generator)[:MAX_ITEMS].to(taken.device)
        items = batch.window.candidates_C[taken[chosen]]
        first, second = (self._view(model, attributes, batch, edges, generator)[items] for _ in range(2))
        return self.weight * info_nce_loss(first, second, temperature=self.temperature)

    def _view(
        self,
        model: Recommender,
        attributes: ItemAttributes,
        batch: Batch,
        edges: EdgeDropper,
        generator: torch.Generator,
    ) -> Tensor:
        graph: ItemGraph = batch.window.graph
        if self.view == "edge_drop":
            graph = edges.draw(share=self.strength, generator=generator)
            return model.item_vectors(graph, attributes, has_id_I=batch.has_id_I)[1]
        perturb = noise(strength=self.strength, generator=generator)
        # Before the convolution, so that a neighbour's noise is heard as well.
        hook = model.encoder.register_forward_pre_hook(lambda _, given: (perturb(given[0]), *given[1:]))
        try:
            return model.item_vectors(graph, attributes, has_id_I=batch.has_id_I)[1]
        finally:
            hook.remove()
