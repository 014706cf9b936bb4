"""How much a caller may send: the length of a body, the time it may take to arrive, and requests a second."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastapi import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import metrics

MOST_ROUNDS = 16


@dataclass
class TokenBucket:
    """Refills steadily up to `burst`; each request takes one token. Not locked: the event loop alone asks it."""

    per_second: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    _tokens: float = field(init=False)
    _filled_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = self.burst
        self._filled_at = self.clock()

    def take(self) -> float:
        """0 where a token was there, else the seconds until one is."""
        now = self.clock()
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.per_second


class RateLimit:
    """One bucket a key. A worker knows its own requests alone, so it grants its part of the service's limit."""

    def __init__(self, *, per_second: float | None, burst: int, workers: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._workers = workers
        self._buckets: dict[str, TokenBucket] = {}  # as many as there are keys

    def check(self, caller: str) -> None:
        """Raise 429 where the caller asks too often."""
        if self._per_second is None:
            return
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = TokenBucket(
                per_second=self._per_second / self._workers, burst=max(self._burst / self._workers, 1.0)
            )
        wait_seconds = bucket.take()
        if wait_seconds > 0:
            metrics.REFUSED.labels("rate").inc()
            raise HTTPException(
                429,
                "This caller asks more often than serve.requests_per_second allows.",
                headers={"Retry-After": str(math.ceil(wait_seconds))},
            )


class Turns:
    """Work in the event loop, one request after the other, with looks at who else has come in between.

    A loop that works 5 ms for each request that it has found would take on one new connection in all that time (libuv
    accepts one a round). Whoever comes in an overload would then wait where nobody counts them, instead of being sent
    away. So the more are waiting, the more rounds the loop makes before it works on the next.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._next = asyncio.Lock()  # first come, first served

    async def take(self) -> None:
        """Wait for one's turn; whoever has it works at once, without waiting for anything more."""
        self.waiting += 1
        try:
            await asyncio.sleep(0)
            async with self._next:
                for _ in range(min(self.waiting - 1, MOST_ROUNDS)):
                    await asyncio.sleep(0)
        finally:
            self.waiting -= 1


class BodyLimit:
    """Refuse a longer body with 413, by its declared length at once, else as it grows; a slower one with 408.

    A client that sends a byte a second would otherwise hold one of the service's places until the request's timeout.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.timeout_seconds = timeout_seconds
        self.too_long = f"The request body may have at most {max_bytes} bytes."
        self.too_slow = f"The request body took longer than {timeout_seconds:g} s to arrive."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] == "GET":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            metrics.REFUSED.labels("body").inc()
            await JSONResponse({"detail": self.too_long, "fields": []}, status_code=413)(scope, receive, send)
            return
        received = 0
        is_whole = False
        deadline = asyncio.get_running_loop().time() + self.timeout_seconds

        async def watched() -> Message:
            nonlocal received, is_whole
            if is_whole:  # what comes now is the end of the connection, for which one may wait long
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                metrics.REFUSED.labels("slow_body").inc()
                raise HTTPException(408, self.too_slow) from error
            received += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if received > self.max_bytes:
                metrics.REFUSED.labels("body").inc()
                raise HTTPException(413, self.too_long)
            return message

        await self.app(scope, watched, send)
