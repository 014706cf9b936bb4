"""The weighted convolution: h_i = σ(Σ_j 1/deg(i) W h_j + b), which is dgl.nn.GraphConv(norm='right')."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from components.model.encoders.base import EncoderConfig, ItemEncoder, ItemGraph


class WeightedEncoder(ItemEncoder):
    """h^(l+1) = σ(Σ_r g_r Â_r (h^(l) W) + b), σ = tanh."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(config.num_layers))
        for linear in self.layers:
            nn.init.eye_(cast(nn.Linear, linear).weight)  # start as the light convolution
            nn.init.zeros_(cast(nn.Linear, linear).bias)

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        linear = cast(nn.Linear, self.layers[layer])
        return torch.tanh(self.aggregate(item_ID @ linear.weight.T, graph) + linear.bias)
