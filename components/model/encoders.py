"""Item graph encoders by name, behind one interface: item vectors in, item vectors that know their neighbours out.

A relation's matrix is row-normalised, so a product with it is Σ_j w_ij/deg(i) h_j. How much each relation counts is a
learnt gate (a softmax over relations), which `relation_gates` reports.

    light     h^(l+1) = Σ_r g_r Â_r h^(l)                 LightGCN (He et al., SIGIR 2020) on an item graph
    weighted  h^(l+1) = σ(Σ_r g_r Â_r (h^(l) W) + b)      graph convolution with norm='right' (σ = tanh)

Both return the mean over layers, the input included: an isolated item keeps its own vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.model.propagation import Relation, propagate

ItemGraph = Mapping[str, Relation]  # relation -> (I, I) row-normalised


class ItemEncoder(nn.Module):
    """Base of all encoders: gates over relations and the mean over layers."""

    def __init__(self, *, relations: tuple[str, ...], dim: int, num_layers: int) -> None:
        super().__init__()
        self.relations = relations
        self.num_layers = num_layers
        self.gate_logits = nn.Parameter(torch.zeros(len(relations)))

    def forward(self, item_ID: Tensor, graph: ItemGraph) -> Tensor:
        """(I, D) -> (I, D)."""
        layer_ID, sum_ID = item_ID, item_ID
        if not self.relations:
            return item_ID
        for layer in range(self.num_layers):
            layer_ID = self.convolve(layer_ID, graph, layer=layer)
            sum_ID = sum_ID + layer_ID
        return sum_ID / (self.num_layers + 1)

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        """One layer: (I, D) -> (I, D)."""
        raise NotImplementedError

    def aggregate(self, item_ID: Tensor, graph: ItemGraph) -> Tensor:
        """Σ_r g_r Â_r h -> (I, D)."""
        gates = torch.softmax(self.gate_logits, dim=0)
        messages = [gate * propagate(graph[name], item_ID) for name, gate in zip(self.relations, gates, strict=True)]
        return torch.stack(messages).sum(dim=0)

    def relation_gates(self) -> dict[str, float]:
        """What each relation counts; sums to 1."""
        return dict(zip(self.relations, torch.softmax(self.gate_logits, dim=0).tolist(), strict=True))


class LightEncoder(ItemEncoder):
    """No weights but the gates."""

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        return self.aggregate(item_ID, graph)


class WeightedEncoder(ItemEncoder):
    """h_i = σ(Σ_j 1/deg(i) W h_j + b)."""

    def __init__(self, *, relations: tuple[str, ...], dim: int, num_layers: int) -> None:
        super().__init__(relations=relations, dim=dim, num_layers=num_layers)
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_layers))
        for linear in self.layers:
            nn.init.eye_(cast(nn.Linear, linear).weight)  # start as the light convolution
            nn.init.zeros_(cast(nn.Linear, linear).bias)

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        linear = cast(nn.Linear, self.layers[layer])
        return torch.tanh(self.aggregate(item_ID @ linear.weight.T, graph) + linear.bias)


ENCODERS: dict[str, Callable[..., ItemEncoder]] = {"light": LightEncoder, "weighted": WeightedEncoder}


def build_encoder(name: str, *, relations: tuple[str, ...], dim: int, num_layers: int) -> ItemEncoder:
    if name not in ENCODERS:
        raise SettingsError(f"train.encoder is '{name}'; known: {', '.join(sorted(ENCODERS))}.")
    return ENCODERS[name](relations=relations, dim=dim, num_layers=num_layers)
