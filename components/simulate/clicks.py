"""People answer a list that they were shown: who sees which place, and who clicks on what.

B: lists, K: places. P(click) = P(place is looked at) x P(item attracts), where attraction grows with the person's taste
for the item's topic, with how much the item is wanted, and with its being new to the person. Both factors are in the
answer, so an off-policy estimate can be held against the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from components.core.clock import as_utc
from components.core.errors import ContractError
from components.core.schemas import EVENTS, TIMESTAMP
from components.simulate.event_rows import day_prefix, numbered_ids
from components.simulate.streams import Stream, generator
from components.simulate.world import World

NO_ITEM = -1
SECOND_US = 1_000_000


class ClickSettings(BaseModel):
    """How people look at lists. Weights are log-odds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    position_exponent: float = Field(default=0.7, ge=0)
    """Place p (from 1) is looked at with probability p^-exponent; 0: no position bias."""
    base_attraction: float = -3.0
    taste: float = 4.0
    """For an item whose topic is all that a person likes; smaller tastes count by their square root."""
    appeal: float = 0.3
    """For one standard deviation of how much an item is wanted within its topic."""
    novelty: float = 0.6
    """For an item that the person did not buy lately; the others lose as much."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for B lists of K places; shorter lists are padded with NO_ITEM. Arrays are (B, K)."""

    user: np.ndarray
    """(B,) index of the person, or NO_ITEM for one whom the world does not know."""
    item: np.ndarray
    examination: np.ndarray
    """Probability that the place is looked at."""
    attraction: np.ndarray
    """Probability that the item is clicked on when it is looked at."""
    is_clicked: np.ndarray
    first_list: int
    moment: datetime

    @property
    def click_probability(self) -> np.ndarray:
        """The truth that a click-through rate estimates; 0 where there is no item."""
        return np.asarray(np.where(self.item == NO_ITEM, 0.0, self.examination * self.attraction))


class ClickModel:
    """Answers lists as the world's people would on the day that the world lives."""

    def __init__(self, world: World, settings: ClickSettings | None = None) -> None:
        self._world = world
        self._settings = settings or ClickSettings()
        self._appeal = (world.catalog.appeal - world.catalog.appeal.mean()) / world.catalog.appeal.std()

    def answer(
        self, user_ids: Sequence[str], lists: Sequence[Sequence[str]], *, moment: datetime, first_list: int
    ) -> Answer:
        """Show `lists[b]` to `user_ids[b]` at `moment`. `first_list` numbers them: equal numbers, equal answers."""
        if len(user_ids) != len(lists):
            raise ContractError(f"{len(user_ids)} users and {len(lists)} lists were given. Give one list a user.")
        item = np.full((len(lists), max(map(len, lists), default=0)), NO_ITEM, dtype=np.int64)
        for row, shown in enumerate(lists):
            item[row, : len(shown)] = [self._index(text, "i", self._world.settings.items) for text in shown]
        user = np.array([self._index(text, "u", self._world.settings.users) for text in user_ids], dtype=np.int64)
        place = np.arange(1, item.shape[1] + 1)
        examination = np.broadcast_to(place**-self._settings.position_exponent, item.shape)
        attraction = self.attraction(user, item)
        rng = generator(self._world.settings, Stream.CLICKS, first_list)
        is_clicked = (rng.random(item.shape) < examination * attraction) & (item != NO_ITEM)
        return Answer(
            user=user,
            item=item,
            examination=examination,
            attraction=attraction,
            is_clicked=is_clicked,
            first_list=first_list,
            moment=as_utc(moment),
        )

    def attraction(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """user (B,), item (B, K) -> probability (B, K) of a click on an item that is looked at."""
        population, catalog, weights = self._world.population, self._world.catalog, self._settings
        is_known = (user != NO_ITEM)[:, None]
        likes_BKS = population.tastes[user][:, None, :] == catalog.topic[item][:, :, None]
        share = (likes_BKS * population.weights[user][:, None, :]).sum(axis=2) * is_known
        was_bought = (population.bought[user][:, None, :] == item[:, :, None]).any(axis=2) & is_known
        log_odds = (
            weights.base_attraction
            + weights.taste * np.sqrt(share)
            + weights.appeal * self._appeal[item]
            + weights.novelty * np.where(was_bought, -1.0, 1.0)
        )
        return np.asarray(1 / (1 + np.exp(-log_odds)))

    def events(self, answer: Answer) -> pa.Table:
        """An impression a place shown and a click a place clicked, in EVENTS' columns; a list is a session."""
        day = answer.moment.date()
        listed, place = np.nonzero(answer.item != NO_ITEM)
        clicked = answer.is_clicked[listed, place]
        order = np.argsort(np.concatenate([2 * np.arange(len(listed)), 2 * np.flatnonzero(clicked) + 1]))
        row = np.concatenate([np.arange(len(listed)), np.flatnonzero(clicked)])[order]
        is_click = np.concatenate([np.zeros(len(listed), bool), np.ones(int(clicked.sum()), bool)])[order]
        listed, place = listed[row], place[row]
        moment_us = int(answer.moment.timestamp() * SECOND_US)
        # Lists are numbered through, K places each, with room for a click beside each impression.
        number = ((answer.first_list + listed) * answer.item.shape[1] + place) * 2 + is_click
        item, user = answer.item[listed, place], answer.user[listed]
        lists = numbered_ids(day_prefix("l", day), answer.first_list, len(answer.user))
        columns = {
            "event_id": pa.array([f"{day_prefix('f', day)}{value:08d}" for value in number.tolist()], pa.string()),
            "user_id": self._world.population.user_ids.take(pa.array(user, mask=user == NO_ITEM)),
            "item_id": self._world.catalog.item_ids.take(pa.array(item)),
            "event_type": pa.array(np.where(is_click, "click", "impression").tolist(), pa.string()),
            "timestamp": pa.array(moment_us + is_click * (place + 1) * SECOND_US).cast(TIMESTAMP),
            "session_id": lists.take(pa.array(listed)),
            "quantity": pa.nulls(len(row), pa.float64()),
            "price": pa.array(self._world.catalog.price[item]),
        }
        return pa.table(columns, schema=EVENTS)

    def exposures(self, answer: Answer) -> pa.Table:
        """A row a place shown, with the probabilities behind it: the key of an off-policy estimate."""
        listed, place = np.nonzero(answer.item != NO_ITEM)
        user = answer.user[listed]
        lists = numbered_ids(day_prefix("l", answer.moment.date()), answer.first_list, len(answer.user))
        return pa.table(
            {
                "list_id": lists.take(pa.array(listed)),
                "user_id": self._world.population.user_ids.take(pa.array(user, mask=user == NO_ITEM)),
                "item_id": self._world.catalog.item_ids.take(pa.array(answer.item[listed, place])),
                "position": (place + 1).astype(np.int32),
                "examination": answer.examination[listed, place],
                "attraction": answer.attraction[listed, place],
                "is_clicked": answer.is_clicked[listed, place],
            }
        )

    def _index(self, text: str, letter: str, count: int) -> int:
        """'u0000012' -> 12. A user whom the world does not know is NO_ITEM; such an item is an error."""
        number = int(text[1:]) if text[:1] == letter and text[1:].isdecimal() else NO_ITEM
        if 0 <= number < count:
            return number
        if letter == "i":
            raise ContractError(f"The list shows '{text}', which is no item of this world.")
        return NO_ITEM
