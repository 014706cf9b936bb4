"""What a world can be told: its size, its habits, and what to plant in it. Frozen, checked at construction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.core.errors import SettingsError

Rate = Annotated[float, Field(ge=0, le=0.5)]
Share = Annotated[float, Field(ge=0, le=1)]

DriftKind = Literal["taste", "price", "popularity", "volume", "conversion", "category", "anonymous"]


class _World(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DefectSettings(_World):
    """Rates of planted defects: of rows where not said otherwise. A row gets one defect at most."""

    duplicate: Rate = 0.0
    """The row is written twice, equal in every column."""
    null_item: Rate = 0.0
    null_event_type: Rate = 0.0
    null_timestamp: Rate = 0.0
    null_identity: Rate = 0.0
    """Neither a user nor a session."""
    future: Rate = 0.0
    """A timestamp 1 to 400 days after the end of the log."""
    stale: Rate = 0.0
    """A timestamp 3 to 20 years before the start of the log."""
    unknown_item: Rate = 0.0
    """An item that the catalogue lacks."""
    unknown_event_type: Rate = 0.0
    negative_price: Rate = 0.0
    negative_quantity: Rate = 0.0
    """Of purchases and carts; quantity is below zero, or zero."""
    outlier_price: Rate = 0.0
    """The price is 1,000,000 times as high."""
    outlier_quantity: Rate = 0.0
    """Of purchases and carts; between 5,000 and 500,000 units."""
    late_day: Rate = 0.0
    """Share of days of which some clean rows arrive in the file of a later day."""
    renamed_column: Rate = 0.0
    """Share of days whose file calls one column by another name."""
    late_row_share: Share = 0.3
    """How much of a late day is late."""
    late_by_days: int = Field(default=2, ge=1)

    def row_rates(self) -> dict[str, float]:
        """Rate by kind, of the kinds that damage single rows."""
        return {kind: getattr(self, kind) for kind in ROW_DEFECTS}

    @property
    def is_clean(self) -> bool:
        return not any(self.row_rates().values()) and not self.late_day and not self.renamed_column

    @model_validator(mode="after")
    def _leave_clean_rows(self) -> DefectSettings:
        if sum(self.row_rates().values()) > 0.9:
            raise ValueError("the rates of all row defects together are above 0.9")
        return self


ROW_DEFECTS: tuple[str, ...] = (
    "duplicate",
    "null_item",
    "null_event_type",
    "null_timestamp",
    "null_identity",
    "future",
    "stale",
    "unknown_item",
    "unknown_event_type",
    "negative_price",
    "negative_quantity",
    "outlier_price",
    "outlier_quantity",
)


class Drift(_World):
    """A lasting change from a day on."""

    kind: DriftKind
    """taste: `size` of the people swap their tastes. price: all prices rise by `size`. popularity: `size` of the items
    trade places within their taste. volume, conversion, anonymous: visits, purchases a view, share of anonymous visits
    change by the factor 1 + `size`. category: `size` of all free picks go to one category."""
    day: int = Field(ge=0)
    """Days after the start."""
    size: float = Field(gt=-1, le=10)

    @model_validator(mode="after")
    def _size_fits_kind(self) -> Drift:
        if self.kind in ("taste", "popularity", "category") and not 0 <= self.size <= 1:
            raise ValueError(f"the size of a drift of '{self.kind}' is a share from 0 to 1")
        return self


class WorldSettings(_World):
    """A world. Equal settings give equal bytes."""

    users: int = Field(default=400, ge=2)
    items: int = Field(default=300, ge=10)
    days: int = Field(default=120, ge=1)
    seed: int = Field(default=7, ge=0)
    start: date = date(2024, 1, 1)
    sessions_per_user_day: float = Field(default=0.2, gt=0, le=50)
    """Mean over people and days, before seasons."""
    views_per_session: float = Field(default=4.0, ge=1, le=50)
    """Median of a heavy-tailed distribution."""
    taste_share: Share = 0.9
    """Share of free picks that follow the person's tastes; the rest follow what is popular."""
    repeat_share: Share = 0.2
    """Share of picks that look first at what the person bought before."""
    social_share: Share = 0.04
    """Share of picks that are what a friend bought."""
    taste_change_per_day: Share = 0.004
    """Chance that a person changes one of six tastes on a day, often towards a friend's."""
    anonymous_share: Share = 0.1
    """Share of sessions without a user."""
    later_users_share: Share = 0.2
    """Share of people who come in the course of the log."""
    new_items_share: Share = 0.25
    """Share of items that appear in the course of the log, some every day."""
    rating_share: Share = 0.0
    """Share of purchases that their buyers rate, from 1 to 5; 0: the log has no column `rating`."""
    defects: DefectSettings = DefectSettings()
    drifts: tuple[Drift, ...] = ()

    def day(self, number: int) -> date:
        return self.start + timedelta(days=number)

    @property
    def as_of(self) -> datetime:
        """The midnight after the last day."""
        end = self.day(self.days)
        return datetime(end.year, end.month, end.day, tzinfo=UTC)

    def drift_size(self, kind: DriftKind, day: int) -> float:
        """Sum of the sizes of this kind's drifts that have begun."""
        return sum(drift.size for drift in self.drifts if drift.kind == kind and drift.day <= day)


def world_settings(**values: Any) -> WorldSettings:
    """Build settings; a mistake becomes one sentence."""
    try:
        return WorldSettings(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"]) or "the world"
        raise SettingsError(f"'{name}' is {problem['input']!r}: {problem['msg']}.") from error


def parse_defects(texts: Iterable[str]) -> dict[str, Any]:
    """['duplicate=0.01'] -> {'duplicate': 0.01}; names are checked against DefectSettings."""
    known = sorted(DefectSettings.model_fields)
    rates: dict[str, Any] = {}
    for text in texts:
        kind, has_rate, rate = text.partition("=")
        if not has_rate or kind not in known:
            raise SettingsError(f"--defect {text!r} is not KIND=RATE. Kinds: {', '.join(known)}.")
        rates[kind] = rate
    return rates


def parse_drifts(texts: Iterable[str]) -> list[dict[str, Any]]:
    """['price@60=0.3'] -> [{'kind': 'price', 'day': 60, 'size': 0.3}]."""
    kinds = get_args(DriftKind)
    drifts = []
    for text in texts:
        where, has_size, size = text.partition("=")
        kind, has_day, day = where.partition("@")
        if not (has_size and has_day) or kind not in kinds:
            raise SettingsError(
                f"--drift {text!r} is not KIND@DAY=SIZE, such as price@60=0.3. Kinds: {', '.join(kinds)}."
            )
        drifts.append({"kind": kind, "day": day, "size": size})
    return drifts
