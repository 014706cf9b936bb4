"""What the online store answers of users: each by itself, or many as columns, without an object for each value.

Legend of shape suffixes: P users whose history is stored as nearly all are, N entries of their histories, F scalar
statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from google.protobuf.message import DecodeError

from components.core.errors import FeatureStoreError
from components.core.lazy import LazySequence
from components.core.schemas import USER_HISTORY, USER_STATISTICS
from feature_repo.online_rows import Answer, Fields, decode
from feature_repo.stored_values import (
    PACKED,
    StoredStrings,
    packed_floats,
    records_of,
    stored_floats,
    stored_number,
    stored_numbers,
)

DAY_SECONDS = 86_400.0
KEYS = ("user_id", "event_timestamp", "created_timestamp")
VIEWS = {
    "user_history": tuple(name for name in USER_HISTORY.names if name not in KEYS),
    "user_statistics": tuple(name for name in USER_STATISTICS.names if name not in KEYS),
}
SCALAR_STATISTICS: tuple[str, ...] = tuple(
    name for name in VIEWS["user_statistics"] if not pa.types.is_list(USER_STATISTICS.field(name).type)
)
SERVED = {
    "user_history": ("history_items", "history_weights", "history_ages_days"),
    "user_statistics": SCALAR_STATISTICS,
}
"""What a recommendation needs: half of the columns, and half of what reading costs."""
OTHERS = tuple(name for view, names in VIEWS.items() for name in names if name not in SERVED[view])

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    """What is known of a user. Lists run from the most recent item to the oldest; ages are at the time of reading."""

    user_id: str
    event_timestamp: datetime
    """The moment these features are of: their age is the service's clock less this."""
    history_items: Sequence[str]
    history_weights: Floats
    history_ages_days: Floats
    statistics: Mapping[str, float | None]
    """The scalar columns of USER_STATISTICS; None where a user has no such figure."""
    others: Mapping[str, bytes]
    """What else is stored, as it is: who asks for one of the next three pays for it. They are empty where the reader
    was not opened for them."""

    @cached_property
    def recent_items(self) -> Sequence[str]:
        return _list(self.others, "recent_items")

    @cached_property
    def recent_times(self) -> Sequence[datetime]:
        return _list(self.others, "recent_times")

    @cached_property
    def category_shares(self) -> Mapping[str, float]:
        names, shares = _list(self.others, "top_categories"), _list(self.others, "top_category_shares")
        return dict(zip(names, shares, strict=True))


class UserColumns(NamedTuple):
    """Histories that are stored as nearly all are, user after user."""

    places_P: Ints
    """Of the users among those that were asked for."""
    records: bytes
    """Of all their items (stored_values.py)."""
    bytes_P: Ints
    """(P + 1,) where each user's records start, and the end of the last."""
    starts_P: Ints
    """(P + 1,) where each user's entries start, and the end of the last."""
    weights_N: Floats
    ages_N: Floats
    """Days, at the time of reading."""
    age_seconds_P: npt.NDArray[np.float64]
    """How old the features are."""
    statistics_PF: npt.NDArray[np.float64]
    """By SCALAR_STATISTICS; nan where a user has no such figure."""


class StoredUsers(LazySequence[UserFeatures | None]):
    """Answers in the order asked: features, or None for a user that the store does not know."""

    def __init__(
        self, user_ids: Sequence[str], answers: Sequence[Answer | None], fields: Fields, *, now: datetime
    ) -> None:
        self._user_ids, self._answers, self._fields = user_ids, answers, fields
        self._now_seconds = now.timestamp()

    def __len__(self) -> int:
        return len(self._answers)

    def make(self, at: int) -> UserFeatures | None:
        with _decoding():
            return self._features(at)

    def _features(self, at: int) -> UserFeatures | None:
        answer, place = self._answers[at], self._fields.at
        if answer is None or (event_seconds := answer[self._fields.moment_at["user_history"]]) is None:
            return None
        # Never younger than they were: a clock behind the snapshot must not make ages negative.
        elapsed_days = max(self._now_seconds - event_seconds, 0.0) / DAY_SECONDS
        statistics = {
            name: None if (value := answer[place[name]]) is None else stored_number(value, decode)
            for name in SCALAR_STATISTICS
        }
        if statistics["recency_days"] is not None:
            statistics["recency_days"] += elapsed_days
        items, weights, ages = (answer[place[name]] or b"" for name in SERVED["user_history"])
        return UserFeatures(
            user_id=self._user_ids[at],
            event_timestamp=datetime.fromtimestamp(event_seconds, UTC),
            history_items=StoredStrings(items, decode),
            history_weights=stored_floats(weights, decode),
            history_ages_days=stored_floats(ages, decode) + np.float32(elapsed_days),
            statistics=statistics,
            others={name: value for name in OTHERS if name in place and (value := answer[place[name]]) is not None},
        )

    def columns(self) -> UserColumns:
        """Whoever is not in them has no history, an empty one, or one that has to be decoded."""
        with _decoding():
            return self._columns()

    def _columns(self) -> UserColumns:
        at_items, at_weights, at_ages = (self._fields.at[name] for name in SERVED["user_history"])
        at_moment = self._fields.moment_at["user_history"]
        at_statistics = [self._fields.at[name] for name in SCALAR_STATISTICS]
        places: list[int] = []
        records: list[bytes] = []
        weights: list[bytes] = []
        ages: list[bytes] = []
        moments: list[float] = []
        rows: list[Answer] = []
        for place, answer in enumerate(self._answers):
            if answer is None or (moment := answer[at_moment]) is None:
                continue
            items_of, weights_of, ages_of = answer[at_items], answer[at_weights], answer[at_ages]
            if not items_of or not weights_of or not ages_of:
                continue
            texts, packed, packed_ages = records_of(items_of), packed_floats(weights_of), packed_floats(ages_of)
            if texts is None or packed is None or packed_ages is None or len(packed) != len(packed_ages):
                continue
            places.append(place)
            records.append(texts)
            weights.append(packed)
            ages.append(packed_ages)
            moments.append(moment)
            rows.append(answer)
        lengths_P = np.fromiter(map(len, weights), np.int64, len(weights)) // PACKED.itemsize
        age_seconds_P = np.maximum(self._now_seconds - np.array(moments, np.float64), 0.0)
        elapsed_P = age_seconds_P / DAY_SECONDS
        statistics_PF = np.empty((len(places), len(SCALAR_STATISTICS)))
        for column, at in enumerate(at_statistics):
            statistics_PF[:, column] = stored_numbers([row[at] for row in rows], decode)
        statistics_PF[:, SCALAR_STATISTICS.index("recency_days")] += elapsed_P
        ages_N = np.frombuffer(b"".join(ages), PACKED)
        return UserColumns(
            places_P=np.array(places, np.int64),
            records=b"".join(records),
            bytes_P=np.cumsum([0, *map(len, records)]),
            starts_P=np.concatenate([[0], np.cumsum(lengths_P)]),
            weights_N=np.array(np.frombuffer(b"".join(weights), PACKED)),  # one that may be written to, as torch wants
            ages_N=ages_N + np.repeat(elapsed_P.astype(np.float32), lengths_P),
            age_seconds_P=age_seconds_P,
            statistics_PF=statistics_PF,
        )


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (DecodeError, ValueError) as error:
        raise FeatureStoreError(
            f"What the online feature store holds of a user cannot be read ({type(error).__name__}). "
            "Run the features step: it writes all users anew."
        ) from error


def _list(columns: Mapping[str, bytes], name: str) -> list[Any]:
    """A stored list; empty where nothing is stored."""
    return (decode(columns[name]) if name in columns else None) or []
