"""Item graph encoders by name, behind one interface: item vectors in, item vectors that know their neighbours out.

A relation's matrix is row-normalised, so a product with it is Σ_j w_ij/deg(i) h_j. How much each relation counts is a
learnt gate (a softmax over the relations that have an edge), which `relation_gates` reports.

    light      h^(l+1) = Σ_r g_r Â_r h^(l)                            LightGCN on an item graph
    weighted   h^(l+1) = σ(Σ_r g_r Â_r (h^(l) W) + b)                 graph convolution with norm='right'
    relational h^(l+1) = σ(Σ_r g_r Â_r h^(l) W_r + h^(l) W_0 + b)     R-GCN, W_r combined of few bases
    attention  h^(l+1) = Σ_r g_r A_r(h^(l)) h^(l)                     softmax over each item's edges
    user_item  the light one, users and their features among the nodes

All return the pooled layers, the input among them: an isolated item keeps its own vector. To add one: a file here, its
name in ENCODERS, and the suite of tests/model/test_encoders.py runs over it.
"""

from __future__ import annotations

from collections.abc import Callable

from components.core.errors import SettingsError
from components.model.encoders.attention import AttentionEncoder
from components.model.encoders.base import EncoderConfig, ItemEncoder, ItemGraph
from components.model.encoders.light import LightEncoder
from components.model.encoders.relational import RelationalEncoder
from components.model.encoders.user_item import USER_ITEM, UserItemEncoder, num_user_features
from components.model.encoders.weighted import WeightedEncoder

__all__ = [
    "ENCODERS",
    "USER_ITEM",
    "AttentionEncoder",
    "EncoderConfig",
    "ItemEncoder",
    "ItemGraph",
    "LightEncoder",
    "RelationalEncoder",
    "UserItemEncoder",
    "WeightedEncoder",
    "build_encoder",
    "num_user_features",
]

ENCODERS: dict[str, Callable[[EncoderConfig], ItemEncoder]] = {
    "attention": AttentionEncoder,
    "light": LightEncoder,
    "relational": RelationalEncoder,
    "user_item": UserItemEncoder,
    "weighted": WeightedEncoder,
}


def build_encoder(name: str, config: EncoderConfig) -> ItemEncoder:
    if name not in ENCODERS:
        raise SettingsError(f"train.encoder is '{name}'; known: {', '.join(sorted(ENCODERS))}.")
    return ENCODERS[name](config)
