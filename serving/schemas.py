"""Requests and answers of the API. Strict: no coercion, and an unknown field is refused with 422."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

ItemId = Annotated[str, Field(min_length=1, max_length=200)]
UserId = Annotated[str, Field(min_length=1, max_length=200)]
EventType = Annotated[str, Field(min_length=1, max_length=100)]
Source = Literal["online_store", "events", "request", "both", "popularity"]
LIST_ID = "^[0-9a-f]{32}$"

# Bounds of the types; settings.serve may set lower ones.
MOST_RESULTS = 1000
MOST_ITEMS = 10_000
MOST_STOCK = 100_000


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class RecentItem(_Request):
    """Something the user did lately, told by the caller."""

    item_id: ItemId
    weight: float = Field(default=1.0, gt=0, le=1000, description="Purchases count 1 each, a cart 0.5, a view 0.2.")
    age_days: float = Field(default=0.0, ge=0, le=36_500, description="Days since the last event with the item.")


class ListConditions(_Request):
    """What a list must keep to."""

    k: int = Field(default=10, ge=1, le=MOST_RESULTS, description="Length of the list.")
    include_seen: bool = Field(default=False, description="Also rank what the user already has (repeat purchases).")
    category: str | None = Field(default=None, min_length=1, max_length=500, description="Only items of this category.")
    price_min: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Only items of a known price that is not below this."
    )
    price_max: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Only items of a known price that is not above this."
    )
    exclude: list[ItemId] = Field(default=[], max_length=MOST_ITEMS, description="Items that must not be listed.")
    in_stock: list[ItemId] | None = Field(
        default=None, max_length=MOST_STOCK, description="Only these items; null: every item."
    )
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="0 ranks by score alone, 1 by unlikeness alone (maximal marginal relevance).",
    )


class RecommendRequest(ListConditions):
    """Who asks: a known user, a list of recent items, or both. Neither: what is popular."""

    user_id: UserId | None = None
    items: list[ItemId | RecentItem] = Field(default=[], max_length=MOST_ITEMS, description="Recent items.")
    reasons: bool = Field(default=True, description="Say why, and what part each term of the score had.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "1", "k": 5}]})


class BatchRequest(ListConditions):
    """Lists for many known users under the same conditions, far cheaper than one request each."""

    user_ids: list[UserId] = Field(min_length=1, max_length=MOST_ITEMS)
    reasons: bool = Field(default=False, description="Say why, and what part each term of the score had.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": ["1", "2"], "k": 5}]})


class Event(_Request):
    """Something that a user did. It counts from their next recommendation on, and in later runs of the pipeline."""

    user_id: UserId
    item_id: ItemId
    event_type: EventType
    timestamp: AwareDatetime | None = Field(
        default=None, strict=False, description="When, with an offset; null: now, by the service's clock."
    )
    event_id: str | None = Field(
        default=None, min_length=1, max_length=200, description="Unique. A repeated request is then counted once."
    )
    session_id: str | None = Field(default=None, min_length=1, max_length=200)
    quantity: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    price: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Of one unit.")
    list_id: str | None = Field(default=None, pattern=LIST_ID, description="The served list that it happened on.")


class EventsRequest(_Request):
    events: list[Event] = Field(min_length=1, max_length=MOST_ITEMS)

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": [{"user_id": "1", "item_id": "1082185", "event_type": "view"}]}]}
    )


class ForgetRequest(_Request):
    user_id: UserId


class SimilarRequest(_Request):
    """Items that are bought by the same people, or alike in the model's eyes."""

    item_id: ItemId
    k: int = Field(default=10, ge=1, le=MOST_RESULTS)


class Item(_Answer):
    item_id: str
    title: str
    category: str | None
    brand: str | None
    price: float | None = Field(description="In the shop's currency; null where unknown.")


class RecommendedItem(Item):
    score: float
    reasons: list[str] = Field(description="Why, as sentences for people; empty where none were asked for.")
    shares: dict[str, float] = Field(
        description="Part of each term of the score in this item's place; they sum to 1, but for their rounding."
    )


class RecommendAnswer(_Answer):
    list_id: str = Field(description="Name of this list; events that happen on it carry it.")
    items: list[RecommendedItem]
    bundle: str = Field(description="SHA-256 of the bundle that answered.")
    source: Source = Field(description="Where the user's history came from; 'popularity' where there was none.")
    propensity: float = Field(description="Probability of this very list: below 1 where serve.exploration draws some.")
    fresh_events: int = Field(description="Events since the features were made that this list reflects.")
    feature_age_seconds: float | None = Field(description="Age of the online features; null where none were used.")
    unknown_items: list[str] = Field(description="Items of the request that this bundle does not know.")
    degraded: list[str] = Field(description="What was done without, such as 'online_store'. Empty when all is well.")


class BatchAnswer(_Answer):
    lists: list[RecommendAnswer] = Field(description="One a user, in the order asked.")


class EventsAnswer(_Answer):
    accepted: int = Field(description="Events that are kept, on disk, for good.")
    over_limit: int = Field(description="Events left out: their user has more weight today than one user may have.")
    out_of_time: int = Field(description="Events left out: they lie in the future, or more than 30 days back.")
    unknown_items: list[str] = Field(description="Items that the live bundle does not know yet; they are kept.")
    degraded: list[str] = Field(description="What was done without, such as 'fresh_store'. Empty when all is well.")


class ForgottenAnswer(_Answer):
    forgotten: int = Field(description="Fresh events that were there.")


class SimilarItem(Item):
    score: float


class SimilarAnswer(_Answer):
    item: Item
    items: list[SimilarItem]
    bundle: str


class HistoryItem(Item):
    weight: float = Field(description="Sum of event weights: two purchases and a view are 2.2.")
    age_days: float = Field(description="Days since the last event with the item.")


class HistoryAnswer(_Answer):
    items: list[HistoryItem] = Field(description="Most recent first.")
    statistics: dict[str, float | None]
    feature_age_seconds: float | None


class SearchAnswer(_Answer):
    items: list[Item]


class ModelAnswer(_Answer):
    bundle: str
    format_version: int
    run_id: str
    cutoff: str = Field(description="The model learnt from what happened before this moment.")
    as_of: str
    clock: str = Field(description="'Now' for the age of histories.")
    items: int
    roles: list[str] = Field(description="What the caller's key allows.")
    stage: str = Field(description="'production', or that of the rollout that runs beside it: 'shadow', 'canary'.")
    terms: dict[str, float] = Field(description="Weight of each term of the score.")
    categories: list[str]
    loaded_at: str | None


class LiveAnswer(_Answer):
    alive: Literal[True] = True


class ReadyAnswer(_Answer):
    """Ready: a bundle is loaded, its hashes and its golden request were checked, and a warm-up was scored."""

    ready: bool
    bundle: str | None
    reason: str | None = Field(description="Why not ready, or why a newer bundle was refused.")
    workers: dict[str, int] = Field(description="How many live workers of the service answer with which bundle.")


class FieldProblem(_Answer):
    field: str
    problem: str


class ErrorAnswer(_Answer):
    detail: str = Field(description="One sentence.")
    fields: list[FieldProblem] = []
