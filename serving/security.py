"""Who may ask, and what a page may do: API keys, loopback, body limit, response headers.

Without keys the service is for this machine alone: the caller and the `Host` it names must be loopback, the latter so
that no web page can reach it under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.network import host_name, is_loopback

BEARER = HTTPBearer(auto_error=False, description="One of settings.serve.api_keys, where some are set.")

# Everything of ours comes from this origin; nothing runs that is not a file of the package.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Gate:
    """Lets a request through, or says why not. Use as a FastAPI dependency."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    @property
    def needs_key(self) -> bool:
        return bool(self._digests)

    def __call__(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> None:
        if not self.needs_key:
            self._refuse_strangers(request)
        elif credentials is None:
            raise HTTPException(
                401,
                "Send an API key: 'Authorization: Bearer KEY'.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        elif not self._knows(credentials.credentials):
            raise HTTPException(403, "This API key is not one of the service's keys.")

    def _knows(self, key: str) -> bool:
        # Every key is compared, and digests are of one length, so the time says nothing of the keys.
        given = _digest(key)
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0

    def _refuse_strangers(self, request: Request) -> None:
        caller = request.client.host if request.client else ""
        if not (is_loopback(caller) and is_loopback(host_name(request.headers.get("host", "")))):
            raise HTTPException(403, "Without API keys the service answers on 127.0.0.1 and localhost alone.")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class BodyLimit:
    """Refuse a larger body with 413: by its declared length at once, else as soon as it grows too long."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.sentence = f"The request body may have at most {max_bytes} bytes."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            await JSONResponse({"detail": self.sentence, "fields": []}, status_code=413)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self.sentence)
            return message

        await self.app(scope, counted, send)


class SafeHeaders:
    """Headers on every answer: nothing is sniffed, framed, or told to other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = PAGE_POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
