"""Events: what users did, taken in. They are kept for good first, and count from the next recommendation on.

1. Each is held against its user's weight of a day (caps), so that no user and no key bends the item graph alone.
2. Those that fit are appended to `feedback/<day>/<worker>.jsonl` under the artifact root, in the contract's columns:
   `basketweave step ingest` reads them as any log. Only when they are on disk is the request answered.
3. The fresh store tells every worker, the rollout is told of clicks and impressions, and the log of served lists of
   what happened on its lists.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from components.core.schemas import EVENT_WEIGHTS, UNLISTED_EVENT_WEIGHT
from components.core.settings import Settings
from serving import metrics
from serving.errors import NotKeptError, RequestError
from serving.fresh import Caps, Charge, FreshBehaviour, FreshEvent, FreshStoreError
from serving.line_log import LineLog
from serving.pseudonyms import Pseudonyms
from serving.schemas import Event, EventsAnswer
from serving.served_log import ListEvent, ServedLog

logger = logging.getLogger(__name__)

FOLDER = "feedback"
# What even an event that says nothing of a taste takes of a user's weight: it costs disk.
LEAST_CHARGE = 0.01
# Clocks of callers may be ahead by this much.
AHEAD = timedelta(minutes=5)
LONGEST_PAST = timedelta(days=30)
CLICKS: frozenset[str] = frozenset({"click"})
IMPRESSIONS: frozenset[str] = frozenset({"impression"})


class Observer(Protocol):
    """The rollout's counters, by arm."""

    def observe_click(self, user_id: str, count: int = 1) -> None: ...

    def observe_impressions(self, user_id: str, count: int) -> None: ...


class EventIntake:
    """Takes events in. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        fresh: FreshBehaviour,
        feedback: LineLog,
        served: ServedLog,
        pseudonyms: Pseudonyms,
        observer: Observer,
    ) -> None:
        self._serve = settings.serve
        self._kinds = frozenset(settings.validation.known_event_types)
        self._fresh = fresh
        self._feedback = feedback
        self._served = served
        self._pseudonyms = pseudonyms
        self._observer = observer
        self._caps = Caps(settings.serve.max_user_weight, settings.serve.max_key_user_weight)
        self._own_spending = Spending()  # where the fresh store is away

    def take(
        self, events: Sequence[Event], *, caller: str, now: datetime, known_items: Collection[str] = ()
    ) -> EventsAnswer:
        """Keep events. `now` is the service's clock.

        Raises:
            RequestError: too many, or of a kind that the log does not know.
            NotKeptError: they could not be written; none of them counts, and the caller should send them again.
        """
        self._check(events)
        in_time = [event for event in events if self._is_in_time(event, now)]
        degraded: list[str] = []
        charges = [Charge(self._pseudonyms.of(event.user_id), _charge(event)) for event in in_time]
        fits = self._spend(charges, day=now.date().isoformat(), caller=caller, degraded=degraded)
        kept = [
            (charge.user, event, event.timestamp or now, event.event_id or uuid.uuid4().hex)
            for charge, event, does_fit in zip(charges, in_time, fits, strict=True)
            if does_fit
        ]
        if kept:
            self._write(kept, day=now.date().isoformat())
            self._tell(kept, degraded)
        self._count("out_of_time", [event for event in events if not self._is_in_time(event, now)])
        self._count("over_limit", [event for event, fit in zip(in_time, fits, strict=True) if not fit])
        self._count("accepted", [event for _, event, _, _ in kept])
        unknown = dict.fromkeys(event.item_id for _, event, _, _ in kept if event.item_id not in known_items)
        return EventsAnswer(
            accepted=len(kept),
            over_limit=len(in_time) - len(kept),
            out_of_time=len(events) - len(in_time),
            unknown_items=list(unknown),
            degraded=degraded,
        )

    def _check(self, events: Sequence[Event]) -> None:
        if len(events) > self._serve.max_events:
            raise RequestError(f"'events' may have at most {self._serve.max_events} entries.")
        for event in events:
            if event.event_type not in self._kinds:
                raise RequestError(f"'event_type' is one of {', '.join(sorted(self._kinds))}.")
            # What ingest would put aside is told to who can mend it.
            if any("\0" in text or not text.strip() for text in (event.user_id, event.item_id)):
                raise RequestError("'user_id' and 'item_id' are neither blank nor hold a NUL byte.")

    def _is_in_time(self, event: Event, now: datetime) -> bool:
        """A replay's clock stands still: what comes after it is its next day."""
        if event.timestamp is None:
            return True
        is_ahead = self._serve.clock == "wall" and event.timestamp > now + AHEAD
        return not is_ahead and event.timestamp >= now - LONGEST_PAST

    def _spend(self, charges: Sequence[Charge], *, day: str, caller: str, degraded: list[str]) -> list[bool]:
        try:
            return self._fresh.store.spend(charges, day=day, key=caller, caps=self._caps)
        except FreshStoreError:
            degraded.append("fresh_store")
            return self._own_spending.spend(charges, day=day, key=caller, caps=self._caps)

    def _write(self, kept: Sequence[tuple[str, Event, datetime, str]], *, day: str) -> None:
        lines = [json.dumps(_row(event, moment, event_id)).encode() for _, event, moment, event_id in kept]
        try:
            self._feedback.append(lines, day=day)
        except Exception as error:  # each store fails in its own types
            logger.exception("Events could not be kept, and were refused.")
            self._count("not_kept", [event for _, event, _, _ in kept])
            raise NotKeptError(
                "The events could not be written down, so none of them counts. Send them again."
            ) from error

    def _tell(self, kept: Sequence[tuple[str, Event, datetime, str]], degraded: list[str]) -> None:
        fresh = [
            (user, FreshEvent(event_id, event.item_id, weight, moment.timestamp()))
            for user, event, moment, event_id in kept
            if (weight := _weight(event)) > 0
        ]
        if fresh and not degraded:
            try:
                self._fresh.add(fresh)
            except FreshStoreError:
                degraded.append("fresh_store")
        if degraded:
            metrics.FALLBACKS.labels("fresh_store").inc()
        for _, event, moment, _ in kept:
            if event.event_type in CLICKS:
                self._observer.observe_click(event.user_id)
            elif event.event_type in IMPRESSIONS:
                self._observer.observe_impressions(event.user_id, 1)
            if event.list_id is not None and self._served.chooses(event.list_id):
                self._served.offer(ListEvent(event.list_id, moment, event.item_id, event.event_type))

    def _count(self, outcome: str, events: Sequence[Event]) -> None:
        for event in events:
            metrics.EVENTS.labels(event.event_type, outcome).inc()


class Spending:
    """One worker's own account of the caps, while the fresh store is away; it knows a day at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._day: str | None = None
        self._spent: dict[tuple[str, str | None], float] = {}

    def spend(self, charges: Sequence[Charge], *, day: str, key: str, caps: Caps) -> list[bool]:
        fits = []
        with self._lock:
            if day != self._day:
                self._day, self._spent = day, {}
            for user, weight in charges:
                in_all, by_key = self._spent.get((user, None), 0.0), self._spent.get((user, key), 0.0)
                fits.append(in_all + weight <= caps.user and by_key + weight <= caps.key_and_user)
                if fits[-1]:
                    self._spent[user, None], self._spent[user, key] = in_all + weight, by_key + weight
        return fits


def _weight(event: Event) -> float:
    return EVENT_WEIGHTS.get(event.event_type, UNLISTED_EVENT_WEIGHT)


def _charge(event: Event) -> float:
    return max(_weight(event), LEAST_CHARGE)


def _row(event: Event, moment: datetime, event_id: str) -> dict[str, Any]:
    """The contract's columns; what is not known is left out, which the contract reads as null."""
    row = {
        "event_id": event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "event_type": event.event_type,
        "timestamp": moment.astimezone(UTC).isoformat(),
        "session_id": event.session_id,
        "quantity": event.quantity,
        "price": event.price,
    }
    return {name: value for name, value in row.items() if value is not None}
