"""Requests and answers of the API. Strict: no coercion, and an unknown field is refused with 422."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ItemId = Annotated[str, Field(min_length=1, max_length=200)]
UserId = Annotated[str, Field(min_length=1, max_length=200)]
Source = Literal["online_store", "request", "both", "popularity"]

# Bounds of the types; settings.serve may set lower ones.
MOST_RESULTS = 1000
MOST_ITEMS = 10_000


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class RecentItem(_Request):
    """Something the user did lately, told by the caller."""

    item_id: ItemId
    weight: float = Field(default=1.0, gt=0, le=1000, description="Purchases count 1 each, a cart 0.5, a view 0.2.")
    age_days: float = Field(default=0.0, ge=0, le=36_500, description="Days since the last event with the item.")


class RecommendRequest(_Request):
    """Who asks: a known user, a list of recent items, or both. Neither: what is popular."""

    user_id: UserId | None = None
    items: list[ItemId | RecentItem] = Field(default=[], max_length=MOST_ITEMS, description="Recent items.")
    k: int = Field(default=10, ge=1, le=MOST_RESULTS, description="Length of the list.")
    include_seen: bool = Field(default=False, description="Also rank what the user already has (repeat purchases).")
    category: str | None = Field(default=None, min_length=1, max_length=500, description="Only items of this category.")
    exclude: list[ItemId] = Field(default=[], max_length=MOST_ITEMS, description="Items that must not be listed.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "1", "k": 5}]})


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
    reasons: list[str] = Field(description="Why, as sentences for people.")
    shares: dict[str, float] = Field(description="Part of each term of the score in this item's place; they sum to 1.")


class RecommendAnswer(_Answer):
    items: list[RecommendedItem]
    bundle: str = Field(description="SHA-256 of the bundle that answered.")
    source: Source = Field(description="Where the user's history came from; 'popularity' where there was none.")
    feature_age_seconds: float | None = Field(description="Age of the online features; null where none were used.")
    unknown_items: list[str] = Field(description="Items of the request that this bundle does not know.")
    degraded: list[str] = Field(description="What was done without, such as 'online_store'. Empty when all is well.")


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
