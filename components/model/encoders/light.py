"""The light convolution: LightGCN (He et al., SIGIR 2020) on an item graph."""

from __future__ import annotations

from torch import Tensor

from components.model.encoders.base import ItemEncoder, ItemGraph


class LightEncoder(ItemEncoder):
    """h^(l+1) = Σ_r g_r Â_r h^(l): no weights but the gates."""

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        return self.aggregate(item_ID, graph)
