"""Attention over a graph's edges: which neighbours an item hears from depends on what both are.

In the manner of a graph transformer's dot product (Shi et al., IJCAI 2021), with cosines in place of raw products:
item vectors are short at the start, and their products would tell no neighbour from another.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.model.edge_products import edge_dot, edge_softmax, edge_sum
from components.model.encoders.base import EncoderConfig, ItemEncoder, ItemGraph
from components.model.propagation import TwoHop, propagate


class AttentionEncoder(ItemEncoder):
    """h_i^(l+1) = Σ_r g_r Σ_j α_rij h_j^(l), head by head, with α_rij ∝ w_rij exp(s_r cos(Q h_i, K h_j)).

    The weights of an item's attention add up to those of its edges. Relations over nodes of another kind have no edges
    between items and are convolved as by the light encoder. Memory is O(edges · heads), whatever the width.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        if config.dim % config.num_heads:
            raise SettingsError(
                f"train.attention_heads is {config.num_heads}, which does not divide train.embedding_dim "
                f"{config.dim}. Choose numbers that do."
            )
        self.queries = nn.ModuleList(nn.Linear(config.dim, config.dim, bias=False) for _ in range(config.num_layers))
        self.keys = nn.ModuleList(nn.Linear(config.dim, config.dim, bias=False) for _ in range(config.num_layers))
        for linear in (*self.queries, *self.keys):
            nn.init.eye_(cast(nn.Linear, linear).weight)  # an item starts by listening to those like itself
        self.sharpness_LRH = nn.Parameter(torch.ones(config.num_layers, len(config.relations), config.num_heads))

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        queries, keys, values = (
            self._heads(vectors) for vectors in (self.queries[layer](item_ID), self.keys[layer](item_ID), item_ID)
        )
        total_ID = torch.zeros_like(item_ID)
        for name, gate in self.gates(graph).items():
            relation = graph[name]
            if isinstance(relation, TwoHop):
                total_ID = total_ID + gate * propagate(relation, item_ID)
                continue
            heads = []
            for head in range(self.config.num_heads):
                cosine_E = edge_dot(relation, F.normalize(queries[head], dim=1), F.normalize(keys[head], dim=1))
                sharpness = self.sharpness_LRH[layer, self.relations.index(name), head]
                heads.append(edge_sum(relation, edge_softmax(relation, sharpness * cosine_E), values[head]))
            total_ID = total_ID + gate * torch.cat(heads, dim=1)
        return total_ID

    def _heads(self, vectors_ID: Tensor) -> list[Tensor]:
        """(I, D) -> H of (I, D/H)."""
        return [part.contiguous() for part in vectors_ID.chunk(self.config.num_heads, dim=1)]
