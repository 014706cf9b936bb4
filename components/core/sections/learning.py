"""Settings of the item graph and of the recommender that learns on it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from components.core.sections.base import Section, Share

LossName = Literal["auto", "full_softmax", "sampled_softmax", "bpr", "mse", "cross_entropy"]
NegativeSampling = Literal["uniform", "popularity"]
ContrastView = Literal["noise", "edge_drop"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
LayerPooling = Literal["mean", "max", "learnt"]
Normalisation = Literal["none", "layer", "l2"]
UserPooling = Literal["decayed", "attention"]


class GraphSettings(Section):
    """The item graph."""

    relations: tuple[str, ...] = (
        "co_purchase",
        "co_view",
        "view_then_buy",
        "same_category",
        "same_brand",
        "price_band",
        "always_with",
    )
    """Edge types to build; each is a function that components/graph/relations.py names. One without edges (a log has
    no views, a shop no rules) is left out of the model."""
    neighbours_per_item: int = Field(default=32, ge=1)
    """Strongest neighbours kept per item in relations from behaviour."""
    group_neighbours_per_item: int = Field(default=8, ge=1)
    """Best-known members of its category, brand or price band that an item is joined to."""
    filter_neighbours_per_item: int = Field(default=128, ge=1)
    """Strongest entries kept in a row of the linear graph filter."""
    filter_history_items: int = Field(default=256, ge=1)
    """Strongest items of a user that the linear filter and user nodes walk through; the cost grows with its square."""
    group_members: int = Field(default=64, ge=1)
    """Best-known items of an attribute value or entity that it listens to."""
    min_distinct_users: int = Field(default=2, ge=1)
    """A behaviour edge needs at least this many different users."""
    half_life_days: float = Field(default=56, gt=0)
    """Weight of an interaction halves every so many days before the graph's cutoff."""
    min_item_users: int = Field(default=5, ge=1)
    """Items with fewer users at the cutoff have no id vector and live from content alone."""
    price_bands: int = Field(default=10, ge=2)
    """Quantile bands of price within a category."""
    knowledge: str | None = None
    """Path or fsspec URI of a table (CSV or parquet) with `head`, `relation`, `tail`, for the relation 'knowledge':
    heads and tails that are item ids are items, all others entities."""
    rules: str | None = None
    """Path or fsspec URI of a merchandiser's table (CSV or parquet) with `item_id`, `other_item_id` and `rule`:
    'never_together' (no list holds both) or 'always_with' (neighbours in the graph)."""
    max_isolated_share: Share = 0.5
    """A graph with a larger share of isolated items stops the run."""
    max_hub_share: Share = 0.2
    """Largest share of a relation's edges that one item may hold."""


class TrainSettings(Section):
    """The graph convolutional recommender."""

    encoder: str = "light"
    """Name of an encoder in components/model/encoders: light, weighted, relational, attention, user_item."""
    embedding_dim: int = Field(default=128, ge=2)
    num_layers: int = Field(default=1, ge=0)
    """Convolutions; 0: an item is its own id and content vectors, and hears from no neighbour."""
    loss: LossName = "auto"
    """What is minimised. 'auto': full_softmax while the items that compete are few enough for it, else
    sampled_softmax. 'bpr' learns from pairs; 'mse' and 'cross_entropy' learn from explicit ratings."""
    negatives: int | None = Field(default=None, ge=1)
    """Items drawn against the taken ones: a step in sampled_softmax (None: 2,048), a taken item in bpr (None: 4)."""
    negative_sampling: NegativeSampling = "popularity"
    """Whether negatives are drawn in proportion to the square root of an item's users, or all alike."""
    contrast_weight: float = Field(default=0.0, ge=0)
    """Weight of the self-supervised term, which pulls two views of an item together; 0: none."""
    contrast_view: ContrastView = "noise"
    """What sets the two views apart: noise on the vectors, or edges left out of the graph."""
    contrast_strength: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Length of the noise relative to the vector's own, or the share of edges left out."""
    contrast_temperature: float = Field(default=0.2, gt=0)
    layer_pooling: LayerPooling = "mean"
    """How an item's layers, its own vector among them, become one: mean, elementwise maximum, learnt average."""
    normalisation: Normalisation = "none"
    """What is done to the vectors of every layer: nothing, layer normalisation, unit length."""
    encoder_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each layer's values zeroed in each training step."""
    relation_bases: int = Field(default=2, ge=1)
    """Encoder 'relational': matrices that the relations' weights are combined of."""
    attention_heads: int = Field(default=4, ge=1)
    """Encoder 'attention': parts of a vector that look at neighbours each in its own way; divides embedding_dim."""
    user_pooling: UserPooling = "decayed"
    """How a history is pooled: by recency and kind of event alone, or with attention learnt on top of these."""
    learning_rate: float = Field(default=0.003, gt=0)
    warmup_share: Share = 0.0
    """Share of all steps in which the learning rate rises to its full height. Large rates need it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """L2: decay of all weights in each step, relative to the learning rate."""
    temperature: float = Field(default=0.3, gt=0)
    """The cosine of user and item is divided by it in the softmax. Chosen, as the rest, on validation slices."""
    batch_users: int = Field(default=256, ge=1)
    micro_batch_users: int | None = Field(default=None, ge=1)
    """Users of a batch held in memory at a time; their gradients add up to the batch's. None: all of them. Halved by
    itself where memory runs out."""
    precision: Precision = "auto"
    """Of the products of users and items. 'auto': bfloat16 where the processor multiplies it natively, else float32;
    'float16' on CUDA alone, with scaled gradients."""
    max_epochs: int = Field(default=8, ge=1)
    patience: int = Field(default=2, ge=1)
    """Evaluations on the validation slice without a gain before training stops."""
    history_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of a history hidden at random in each training step."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of items whose id vector is hidden in each training step, so that content learns to stand alone."""
    warm_start: bool = False
    """Start from what the last bundle of an earlier moment had learnt, and keep in the bundle what the next one needs
    for it. Quality and time beside a cold start: benchmarks/warm_start.py."""
    seed: int = 20_261_124
    device: Literal["auto", "cpu", "cuda"] = "auto"
