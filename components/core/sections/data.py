"""Settings of where data comes from, what of it is believed, and how time is cut."""

from __future__ import annotations

from pydantic import Field, model_validator

from components.core.sections.base import Section, Share


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
    min_rating: float = 0
    """The lowest rating of the shop's scale; what lies outside goes to quarantine."""
    max_rating: float = 5
    """The highest rating of the shop's scale."""
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

    @model_validator(mode="after")
    def _scale_has_two_ends(self) -> ValidateSettings:
        if not self.min_rating < self.max_rating:
            raise ValueError("max_rating must be above min_rating")
        return self


class FeatureSettings(Section):
    """User and item features."""

    history_length: int = Field(default=1000, ge=1)
    """Most recent distinct items kept in a user's history."""
    recent_items: int = Field(default=50, ge=1)
    """Last events with their times, the feature that sequence models read."""
    top_categories: int = Field(default=20, ge=1)
    """Categories whose share a user's feature row keeps."""
