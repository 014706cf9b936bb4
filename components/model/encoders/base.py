"""What all encoders share: gates over relations, layers, their normalisation, dropout and pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.sections import LayerPooling, Normalisation
from components.model.propagation import Relation, TwoHop, propagate

ItemGraph = Mapping[str, Relation]  # relation -> (I, I) row-normalised


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of an encoder; what one encoder does not read, it ignores."""

    relations: tuple[str, ...]
    dim: int
    num_layers: int
    pooling: LayerPooling = "mean"
    """How the layers, the input included, become one vector: their mean, elementwise maximum or learnt average."""
    dropout: float = 0.0
    """Share of each layer's values that is zeroed in training."""
    normalisation: Normalisation = "none"
    """What is done to every layer's vectors, the input's included: nothing, layer normalisation, unit length."""
    num_bases: int = 2
    """`relational`: matrices that the relations' weights are combined of."""
    num_heads: int = 4
    """`attention`: parts of a vector that look at neighbours each in its own way."""
    num_node_features: int = 0
    """`user_item`: F of the relation's `features_NF`."""


class ItemEncoder(nn.Module):
    """Item vectors (I, D) and an item graph -> (I, D). A subclass says what one layer does."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.relations = config.relations
        self.num_layers = config.num_layers
        self.gate_logits = nn.Parameter(torch.zeros(len(config.relations)))
        convolves = bool(config.num_layers and config.relations)
        if config.pooling == "learnt" and convolves:
            self.layer_logits = nn.Parameter(torch.zeros(config.num_layers + 1))  # starts as the mean
        if config.normalisation == "layer" and convolves:
            self.norms = nn.ModuleList(nn.LayerNorm(config.dim) for _ in range(config.num_layers + 1))

    def start(self, generator: torch.Generator) -> None:
        """Draw what starts at random; most encoders start as the light convolution and draw nothing."""

    def forward(self, item_ID: Tensor, graph: ItemGraph) -> Tensor:
        """(I, D) -> (I, D). A graph without an edge, or no layers, leaves the vectors as they are."""
        if not self.num_layers or not any(has_edges(graph[name]) for name in self.relations):
            return item_ID
        layers = [self.normalise(item_ID, layer=0)]
        for layer in range(self.num_layers):
            convolved_ID = self.convolve(layers[-1], graph, layer=layer)
            convolved_ID = F.dropout(convolved_ID, self.config.dropout, training=self.training)
            layers.append(self.normalise(convolved_ID, layer=layer + 1))
        return self._pool(layers, graph)

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        """One layer: (I, D) -> (I, D)."""
        raise NotImplementedError

    def normalise(self, item_ID: Tensor, *, layer: int) -> Tensor:
        """(I, D) -> (I, D); layer 0 is the input."""
        if self.config.normalisation == "l2":
            return F.normalize(item_ID, dim=1)
        if self.config.normalisation == "layer":
            return cast(Tensor, self.norms[layer](item_ID))
        return item_ID

    def gates(self, graph: ItemGraph) -> dict[str, Tensor]:
        """relation -> scalar: what it counts, a softmax over the relations that have an edge in `graph`."""
        active = [place for place, name in enumerate(self.relations) if has_edges(graph[name])]
        shares = torch.softmax(self.gate_logits[active], dim=0)
        return {self.relations[place]: share for place, share in zip(active, shares, strict=True)}

    def aggregate(self, item_ID: Tensor, graph: ItemGraph) -> Tensor:
        """Σ_r g_r Â_r h -> (I, D)."""
        messages = [gate * propagate(graph[name], item_ID) for name, gate in self.gates(graph).items()]
        return torch.stack(messages).sum(dim=0)

    def relation_gates(self, graph: ItemGraph) -> dict[str, float]:
        """What each relation counts in `graph`; sums to 1, and is 0 for a relation without an edge."""
        gates = self.gates(graph)
        return {name: gates[name].item() if name in gates else 0.0 for name in self.relations}

    def _pool(self, layers: list[Tensor], graph: ItemGraph) -> Tensor:
        if self.config.pooling == "learnt":
            share_L = torch.softmax(self.layer_logits, dim=0)
            return torch.einsum("l,lid->id", share_L, torch.stack(layers))
        if self.config.pooling == "max":
            # The zeros that an item without neighbours hears are silence, not values.
            silent_I1 = ~hearing_items(graph, self.relations)[:, None]
            heard = [layer.masked_fill(silent_I1, -torch.inf) for layer in layers[1:]]
            return torch.stack([layers[0], *heard]).amax(dim=0)
        return sum(layers[1:], layers[0]) / len(layers)


def has_edges(relation: Relation) -> bool:
    """Whether anything is heard over the relation."""
    if isinstance(relation, TwoHop):
        return has_edges(relation.gather) and has_edges(relation.spread)
    return len(relation.indices) > 0


def hearing_items(graph: ItemGraph, relations: tuple[str, ...]) -> Tensor:
    """(I,) bool: items with a neighbour in any of the relations."""
    matrices = [graph[name] for name in relations]
    rows = [one.spread.indptr if isinstance(one, TwoHop) else one.indptr for one in matrices]
    return torch.stack([indptr.diff() > 0 for indptr in rows]).any(dim=0)
