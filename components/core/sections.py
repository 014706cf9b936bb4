"""The sections of `Settings`, one frozen model each; a field's description is its help text everywhere.

A step's artifact depends on the sections that its `Step` names, so a change of `serve.port` retrains nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from components.core.clock import parse_time

Share = Annotated[float, Field(ge=0, le=1)]
LossName = Literal["auto", "full_softmax", "sampled_softmax", "bpr", "mse", "cross_entropy"]
NegativeSampling = Literal["uniform", "popularity"]
ContrastView = Literal["noise", "edge_drop"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
LayerPooling = Literal["mean", "max", "learnt"]
Normalisation = Literal["none", "layer", "l2"]
UserPooling = Literal["decayed", "attention"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class SourceSettings(Section):
    """Where behaviour comes from."""

    profile: str = "complete_journey"
    """Name of a profile in components/ingest/profiles ('contract' for files in the project's own contract), or a path
    to a profile of your own (.toml)."""
    events: str | None = None
    """Path, glob or fsspec URI of the event files (parquet, CSV or JSONL). Needed by profile 'contract'."""
    catalog: str | None = None
    """Path, glob or fsspec URI of the catalogue files; None where a shop has none."""
    data: str | None = None
    """Folder or file that a profile other than 'contract' reads."""
    session_gap_minutes: float = Field(default=30, gt=0)
    """Rows without a session_id: a user's silence longer than this begins a new session."""


class SplitSettings(Section):
    """How time is cut into training, validation and hold-out: see components/core/split.py."""

    window_days: int = Field(default=28, ge=1)
    """Length of the hold-out, of the validation slice and of each training target window, in days."""
    training_windows: int = Field(default=2, ge=1)
    """Target windows before the validation slice that the model learns from."""


class ValidateSettings(Section):
    """What counts as a bad row (goes to quarantine) and as a bad table (stops the run)."""

    known_event_types: tuple[str, ...] = ("view", "cart", "purchase", "wishlist", "rating", "impression", "click")
    max_quantity: float = Field(default=1000, gt=0)
    """A larger quantity in one event is an outlier and goes to quarantine (fuel sold in millilitres, say)."""
    max_price: float = Field(default=100_000, gt=0)
    max_quarantined_share: Share = 0.25
    """A day with a larger share of bad rows stops the run."""
    max_unknown_item_share: Share = 0.05
    """Share of a day's events whose item the catalogue lacks; such rows are kept, a larger share stops the run."""
    max_staleness_days: float = Field(default=3, gt=0)
    """Freshness: the newest event may be at most this much older than `as_of`."""
    min_rows_ratio: float = Field(default=0.1, ge=0)
    """A day with fewer rows than this share of the median of the days before it is reported."""
    max_rows_ratio: float = Field(default=10, gt=0)
    recent_days: int = Field(default=28, ge=1)
    """How many days before a day its row count and median price are compared with."""
    min_price_ratio: float = Field(default=0.2, ge=0)
    """A day whose median price is under this share of the days' before it is reported: prices in another unit, say."""
    max_price_ratio: float = Field(default=5, gt=0)
    max_gap_days: float = Field(default=30, gt=0)
    """A longer time without any event ends the log's main stretch; rows beyond it are taken for wrong times."""
    max_outlying_share: Share = 0.02
    """Share of the log's rows beyond its main stretch: up to here they go to quarantine, more stop the run."""
    example_rows: int = Field(default=5, ge=0)
    """Quarantined rows that the quality page shows a reason, users made unrecognisable."""
    data_docs: bool = False
    """Also write Great Expectations' own pages; they load from the internet when they are looked at."""


class FeatureSettings(Section):
    """User and item features."""

    history_length: int = Field(default=1000, ge=1)
    """Most recent distinct items kept in a user's history."""
    recent_items: int = Field(default=50, ge=1)
    """Last events with their times, the feature that sequence models read."""
    top_categories: int = Field(default=20, ge=1)
    """Categories whose share a user's feature row keeps."""


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


class EvaluateSettings(Section):
    """Metrics and gates."""

    cutoff_k: int = Field(default=20, ge=1)
    """Length of the ranked list that every metric looks at."""
    bootstrap_resamples: int = Field(default=2000, ge=100)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    min_users: int = Field(default=100, ge=1)
    """Fewer evaluated users than this is 'insufficient', never a pass."""
    min_recall: float = Field(default=0.005, ge=0)
    min_ndcg: float = Field(default=0.005, ge=0)
    min_coverage: float = Field(default=0.003, ge=0)
    """Share of the catalogue that appears in at least one user's list."""
    example_users: int = Field(default=5, ge=0)


class DeploySettings(Section):
    """The service that `deploy` starts or swaps."""

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    """None: a free port is chosen once and kept in the home folder."""
    ready_timeout_seconds: float = Field(default=120, gt=0)
    model_name: str = "basketweave"
    """Name of the registered model in MLflow."""
    start_service: bool = True
    """False where the service is run by somebody else (Kubernetes): deploy then only moves the pointer."""


class ServeSettings(Section):
    """The service itself."""

    workers: int = Field(default=1, ge=1)
    api_keys: tuple[SecretStr, ...] = ()
    """Keys that callers send as `Authorization: Bearer …`; needed for any host that is not loopback."""
    pointer_poll_seconds: float = Field(default=1.0, gt=0)
    """How often a worker looks whether the pointer names another bundle."""
    max_k: int = Field(default=100, ge=1)
    max_history: int = Field(default=1000, ge=1)
    max_body_bytes: int = Field(default=1_000_000, ge=1024)
    """A larger request body is refused with 413."""
    max_concurrent_requests: int = Field(default=64, ge=1)
    """Requests that the service works on at once, over all workers; more are shed with 429."""
    request_timeout_seconds: float = Field(default=30, ge=1)
    """A request that takes longer is answered with 504."""
    bundle: str | None = None
    """Folder of the one bundle to serve; None: follow the deploy pointer in the artifact store."""
    clock: str | None = None
    """'Now', against which histories are aged: an ISO time, or 'wall' for the wall clock of a shop whose events are
    live; None: the bundle's `as_of`, which makes a finished log a replay."""

    @field_validator("clock")
    @classmethod
    def _clock_is_a_time(cls, clock: str | None) -> str | None:
        if clock not in (None, "wall"):
            parse_time(clock)
        return clock


class TrackingSettings(Section):
    """MLflow."""

    uri: str | None = None
    """None: SQLite in the home folder."""
    experiment: str = "basketweave"


class OrchestrationSettings(Section):
    """How Airflow runs the steps. None of it shapes an artifact."""

    mode: Literal["in_process", "kubernetes"] = "in_process"
    """Where a step runs: in Airflow's own task process, or as a pod of its own."""
    schedule: str | None = "@daily"
    """Cron expression or preset of the DAG `recommender`; None: only when asked."""
    as_of: Literal["log", "schedule"] = "log"
    """What a scheduled run is judged as of: the end of the log's last day, or the moment it was scheduled for, which
    notices a live log that has stopped. A backfill always takes the latter."""
    retries: int = Field(default=2, ge=0)
    """Further tries of a task whose failure may pass. `basketweave run` tries once."""
    retry_delay_seconds: float = Field(default=60, ge=0)
    step_timeout_minutes: float = Field(default=360, gt=0)
    """A step that runs longer is stopped and counts as failed."""
    namespace: str = "basketweave"
    """Kubernetes namespace of the steps' pods."""
    image: str | None = None
    """Image of the steps' pods; needed by mode 'kubernetes'."""
    train_image: str | None = None
    """Image of the pod that trains, such as a CUDA build; None: `image`."""
    train_gpus: int = Field(default=0, ge=0)
    """GPUs that the pod of `train` asks for."""
    config_map: str | None = None
    """ConfigMap whose entries become the pods' environment: settings as BASKETWEAVE_… variables."""
    secret: str | None = None
    """Secret whose entries become the pods' environment."""
    service_account: str | None = None
    """Service account of the pods; None: the namespace's default."""
