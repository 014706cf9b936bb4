"""Fresh behaviour in Redis, for the workers of all pods."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from components.core.sections import ServeSettings
from serving.fresh import Caps, Changes, Charge, FreshEvent, FreshStoreError

TIMEOUT_SECONDS = 0.5
DAY_SECONDS = 86_400
CHANGES_KEPT = 50_000


class RedisFresh:
    """A `FreshStore`: a list a user, a stream of who changed, and a hash a user and day of what was spent."""

    is_remote = True

    def __init__(self, url: str, *, project: str, limits: ServeSettings) -> None:
        # Any: redis-py types each answer as all that its settings could make of it.
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS, decode_responses=True
        )
        self._limits = limits
        self._prefix = f"basketweave:{project}"
        self._changes = f"{self._prefix}:changes"

    def add(self, events: Sequence[tuple[str, FreshEvent]]) -> None:
        kept_seconds = int(self._limits.fresh_days * DAY_SECONDS)
        with self._as_fresh_store_error(), self._redis.pipeline(transaction=False) as pipeline:
            for user, event in events:
                pipeline.lpush(self._events_of(user), json.dumps(event))
            for user in dict.fromkeys(user for user, _ in events):
                # Twice as many: a repeated event is told by its id when the list is read.
                pipeline.ltrim(self._events_of(user), 0, 2 * self._limits.fresh_events - 1)
                pipeline.expire(self._events_of(user), kept_seconds)
                pipeline.xadd(self._changes, {"user": user}, maxlen=CHANGES_KEPT, approximate=True)
            pipeline.execute()

    def read(self, users: Sequence[str]) -> list[list[FreshEvent]]:
        with self._as_fresh_store_error(), self._redis.pipeline(transaction=False) as pipeline:
            for user in users:
                pipeline.lrange(self._events_of(user), 0, -1)
            rows = pipeline.execute()
        return [self._latest(texts) for texts in rows]

    def forget(self, user: str) -> int:
        with self._as_fresh_store_error(), self._redis.pipeline() as pipeline:
            pipeline.llen(self._events_of(user))
            pipeline.delete(self._events_of(user))
            pipeline.xadd(self._changes, {"user": user}, maxlen=CHANGES_KEPT, approximate=True)
            count: int = pipeline.execute()[0]
        return count

    def changes(self, since: str | None) -> Changes:
        """The stamp is the last id that was seen in the stream."""
        with self._as_fresh_store_error():
            if since is None:
                last = self._redis.xrevrange(self._changes, count=1)
                return Changes(None, last[0][0] if last else "0-0")
            entries = self._redis.xrange(self._changes, min=f"({since}", count=CHANGES_KEPT)
            if not entries:
                return Changes((), since)
            first = self._redis.xrange(self._changes, count=1)
            # Trimmed beyond what was seen last: some changes were missed.
            is_gap = since != "0-0" and _id(first[0][0]) > _id(since)
        users = None if is_gap else list({values["user"] for _, values in entries})
        return Changes(users, str(entries[-1][0]))

    def spend(self, charges: Sequence[Charge], *, day: str, key: str, caps: Caps) -> list[bool]:
        """Each increment tells the sum that it made, whichever worker made it; what does not fit is taken back."""
        with self._as_fresh_store_error():
            with self._redis.pipeline(transaction=False) as pipeline:
                for user, weight in charges:
                    pipeline.hincrbyfloat(self._spent(day, user), "*", weight)
                    pipeline.hincrbyfloat(self._spent(day, user), key, weight)
                    pipeline.expire(self._spent(day, user), 2 * DAY_SECONDS)
                sums = pipeline.execute()
            rounding = 1e-9
            fits = [
                float(sums[3 * n]) <= caps.user + rounding and float(sums[3 * n + 1]) <= caps.key_and_user + rounding
                for n in range(len(charges))
            ]
            if not all(fits):
                with self._redis.pipeline(transaction=False) as pipeline:
                    for (user, weight), does_fit in zip(charges, fits, strict=True):
                        if not does_fit:
                            pipeline.hincrbyfloat(self._spent(day, user), "*", -weight)
                            pipeline.hincrbyfloat(self._spent(day, user), key, -weight)
                    pipeline.execute()
        return fits

    def close(self) -> None:
        self._redis.close()

    def _events_of(self, user: str) -> str:
        return f"{self._prefix}:fresh:{user}"

    def _spent(self, day: str, user: str) -> str:
        return f"{self._prefix}:spent:{day}:{user}"

    def _latest(self, texts: Sequence[str]) -> list[FreshEvent]:
        events = {event.event_id: event for text in reversed(texts) for event in (FreshEvent(*json.loads(text)),)}
        return sorted(events.values(), key=lambda event: -event.seconds)[: self._limits.fresh_events]

    @contextmanager
    def _as_fresh_store_error(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            # Not the error's own words: they can hold the URL, and with it a password.
            raise FreshStoreError(f"Redis does not answer ({type(error).__name__})") from error


def _id(entry: str) -> tuple[int, int]:
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)
