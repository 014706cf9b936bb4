"""Users in the convolution: items hear from each other through those who had them, and from what is known of these."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.model.encoders.base import EncoderConfig, ItemEncoder, ItemGraph
from components.model.propagation import TwoHop, propagate

USER_ITEM = "user_item"


class UserItemEncoder(ItemEncoder):
    """User nodes z_u = σ((Σ_i Â_ui h_i + F x_u) W + b), items h^(l+1) = g Â_iu z + Σ_r g_r Â_r h^(l), σ = tanh.

    x_u are the users' standardised features; an unknown one counts as an average one.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        if USER_ITEM not in config.relations:
            raise SettingsError(
                f"train.encoder 'user_item' convolves over users, and graph.relations names no '{USER_ITEM}'. "
                "Add it there, or choose another encoder."
            )
        self.layers = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in range(config.num_layers))
        for linear in self.layers:
            nn.init.eye_(cast(nn.Linear, linear).weight)  # start as the light convolution
            nn.init.zeros_(cast(nn.Linear, linear).bias)
        if config.num_node_features and config.num_layers:
            self.features_LFD = nn.Parameter(torch.zeros(config.num_layers, config.num_node_features, config.dim))

    def convolve(self, item_ID: Tensor, graph: ItemGraph, *, layer: int) -> Tensor:
        total_ID = torch.zeros_like(item_ID)
        for name, gate in self.gates(graph).items():
            relation = graph[name]
            if name == USER_ITEM and isinstance(relation, TwoHop):
                message_ID = propagate(relation.spread, self._users(item_ID, relation, layer=layer))
            else:
                message_ID = propagate(relation, item_ID)
            total_ID = total_ID + gate * message_ID
        return total_ID

    def _users(self, item_ID: Tensor, relation: TwoHop, *, layer: int) -> Tensor:
        """-> (U, D)."""
        user_UD = propagate(relation.gather, item_ID)
        if self.config.num_node_features and relation.features_NF is not None:
            user_UD = user_UD + torch.nan_to_num(relation.features_NF) @ self.features_LFD[layer]
        return torch.tanh(self.layers[layer](user_UD))


def num_user_features(graph: ItemGraph) -> int:
    """How many features the users of the graph's `user_item` relation have; 0 where there are none."""
    relation = graph.get(USER_ITEM)
    if not isinstance(relation, TwoHop) or relation.features_NF is None:
        return 0
    return relation.features_NF.shape[1]
