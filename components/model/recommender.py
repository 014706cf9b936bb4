"""The trained part: item vectors from ids, content and the item graph, and the user vector that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.sections import LayerPooling, Normalisation, UserPooling
from components.model.attributes import ItemAttributes
from components.model.encoders import EncoderConfig, ItemGraph, build_encoder
from components.model.histories import Histories
from components.model.user_vector import UserVector


@dataclass(frozen=True, kw_only=True)
class RecommenderConfig:
    """Shape of the network; kept in the bundle."""

    num_items: int
    dim: int
    num_layers: int
    encoder: str
    relations: tuple[str, ...]
    attribute_sizes: tuple[int, ...]
    num_statistics: int
    half_life_days: float | None
    num_tables: int = 2
    """2: an item has one id vector as part of a history and another as a target."""
    layer_pooling: LayerPooling = "mean"
    normalisation: Normalisation = "none"
    encoder_dropout: float = 0.0
    relation_bases: int = 2
    attention_heads: int = 4
    num_user_features: int = 0
    """Features of the users that the graph's relation `user_item` runs over."""
    user_pooling: UserPooling = "decayed"

    @property
    def encoder_config(self) -> EncoderConfig:
        return EncoderConfig(
            relations=self.relations,
            dim=self.dim,
            num_layers=self.num_layers,
            pooling=self.layer_pooling,
            dropout=self.encoder_dropout,
            normalisation=self.normalisation,
            num_bases=self.relation_bases,
            num_heads=self.attention_heads,
            num_node_features=self.num_user_features,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RecommenderConfig:
        """What `to_json` gave, after its way through a file."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return cls(**fields)


class Recommender(nn.Module):
    """`item_vectors` once a batch, then `user_vectors` for its users; the similarity is their cosine."""

    def __init__(self, config: RecommenderConfig) -> None:
        super().__init__()
        self.config = config
        self.id_tables = nn.ParameterList(
            nn.Parameter(torch.zeros(config.num_items, config.dim)) for _ in range(config.num_tables)
        )
        self.content = nn.ModuleList(nn.Embedding(size, config.dim, padding_idx=0) for size in config.attribute_sizes)
        self.encoder = build_encoder(config.encoder, config.encoder_config)
        self.user_vector = UserVector(
            num_items=config.num_items,
            dim=config.dim,
            num_statistics=config.num_statistics,
            half_life_days=config.half_life_days,
            pooling=config.user_pooling,
        )

    @torch.no_grad()
    def start(self, *, id_vectors: Tensor | None, generator: torch.Generator) -> None:
        """Begin with the given (I, d <= D) id vectors (a randomised SVD, say) and small content vectors."""
        for table in self.id_tables:
            table.normal_(std=0.01, generator=generator)
            if id_vectors is not None:
                table[:, : id_vectors.shape[1]] += id_vectors
        for embedding in self.content:
            assert isinstance(embedding, nn.Embedding)
            embedding.weight.normal_(std=0.01, generator=generator)
            embedding.weight[0] = 0
        self.encoder.start(generator)
        self.user_vector.start(generator)

    def item_vectors(self, graph: ItemGraph, attributes: ItemAttributes, *, has_id_I: Tensor) -> tuple[Tensor, Tensor]:
        """-> (I, D) vectors of items in a history, (I, D) unit vectors of items as targets.

        Where `has_id_I` (I,) is false, an item has no id vector: content and neighbours stand alone.
        """
        content_ID = self.id_tables[0].new_zeros(self.config.num_items, self.config.dim)
        for column, embedding in enumerate(self.content):
            content_ID = content_ID + embedding(attributes.codes_IA[:, column])
        masked = has_id_I.to(content_ID.dtype)[:, None]
        tables = [self.encoder(table * masked + content_ID, graph) for table in self.id_tables]
        return tables[0], F.normalize(tables[-1], dim=1)

    def user_vectors(self, histories: Histories, statistics_BF: Tensor, history_ID: Tensor) -> Tensor:
        """-> (B, D) unit vectors."""
        vectors: Tensor = self.user_vector(histories, statistics_BF, history_ID)
        return vectors

    @torch.no_grad()
    def over_items(self, items: Tensor, *, num_items: int) -> Recommender:
        """The same network over a table of `num_items`, in which its own items stand at the rows `items`.

        Rows of other items get no id vector: content and neighbours speak for them.
        """
        wider = Recommender(replace(self.config, num_items=num_items))
        own = self.state_dict()
        state = wider.state_dict()
        for name in state:
            if name.startswith("id_tables.") or name == "user_vector.item_degree_I":
                state[name][items] = own[name]
            else:
                state[name] = own[name]
        wider.load_state_dict(state)
        return wider.eval()
