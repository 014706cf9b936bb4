"""Who may ask what, and what a page may do: API keys with roles, loopback, response headers.

Without keys the service is for this machine alone: the caller and the `Host` it names must be loopback, the latter so
that no web page can reach it under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.core.sections import ApiKey, Role, ServeSettings
from serving import metrics
from serving.limits import RateLimit
from serving.network import host_name, is_loopback

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

# As the API's description names the scheme.
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "One of settings.serve.api_keys, where some are set.",
}
PLAIN_KEY_ROLES: frozenset[Role] = frozenset({"recommend", "feedback"})
LOCAL_ROLES: frozenset[Role] = frozenset({"recommend", "feedback", "admin"})

# Everything of ours comes from this origin; nothing runs that is not a file of the package.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# As ASGI sends them.
SAFE_HEADERS = (
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


@dataclass(frozen=True)
class Caller:
    """Who asks: a key's name, never the key."""

    name: str
    roles: frozenset[Role]


THIS_MACHINE = Caller("local", LOCAL_ROLES)


class Gate:
    """Lets a request through, or says why not, before its body is read."""

    def __init__(self, settings: ServeSettings) -> None:
        # By digest: to find one by the time that a look-up takes, one would have to invert SHA-256.
        self._caller_of: dict[bytes, Caller] = {}
        for place, key in enumerate(settings.api_keys, start=1):
            if isinstance(key, ApiKey):
                digest, caller = (
                    bytes.fromhex(key.digest.removeprefix("sha256:")),
                    Caller(key.name, frozenset(key.roles)),
                )
            else:
                digest, caller = _digest(key.get_secret_value()), Caller(f"key-{place}", PLAIN_KEY_ROLES)
            self._caller_of[digest] = caller
        self._rate = RateLimit(
            per_second=settings.requests_per_second, burst=settings.request_burst, workers=settings.workers
        )

    def admit(self, request: Request, role: Role) -> Caller:
        """The caller, who has the role; raises 401, 403 or 429 for everybody else."""
        caller = self._known_caller(request) if self._caller_of else self._this_machine(request)
        if role not in caller.roles:
            metrics.REFUSED.labels("role").inc()
            raise HTTPException(403, f"This API key has not the role '{role}'.")
        self._rate.check(caller.name)
        return caller

    def _known_caller(self, request: Request) -> Caller:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            metrics.REFUSED.labels("no_key").inc()
            raise HTTPException(
                401,
                "Send an API key: 'Authorization: Bearer KEY'.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        caller = self._caller_of.get(_digest(key.strip()))
        if caller is None:
            metrics.REFUSED.labels("unknown_key").inc()
            raise HTTPException(403, "This API key is not one of the service's keys.")
        return caller

    def _this_machine(self, request: Request) -> Caller:
        caller = request.client.host if request.client else ""
        if not (is_loopback(caller) and is_loopback(host_name(request.headers.get("host", "")))):
            metrics.REFUSED.labels("stranger").inc()
            raise HTTPException(403, "Without API keys the service answers on 127.0.0.1 and localhost alone.")
        return THIS_MACHINE


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def route_for(role: Role) -> type[APIRoute]:
    """A route that is for callers of one role. It asks the gate first: FastAPI's own dependencies come after the
    body, so that a stranger would learn whether theirs was valid."""

    class GuardedRoute(APIRoute):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options["openapi_extra"] = {"security": [{"ApiKey": []}], **(options.get("openapi_extra") or {})}
            super().__init__(*arguments, **options)

        def get_route_handler(self) -> Handler:
            answer = self.answering()

            async def admitted(request: Request) -> Response:
                request.state.caller = request.app.state.gate.admit(request, role)
                return await answer(request)

            return admitted

        def answering(self) -> Handler:
            return super().get_route_handler()

    return GuardedRoute


def straight_route_for(role: Role, model: type[BaseModel]) -> type[APIRoute]:
    """A guarded route of `endpoint(request, body)` that reads a sound body itself.

    It spares such a request FastAPI's own way to the endpoint. Whatever is not plain JSON and sound goes that way all
    the same, and is refused as everywhere.
    """

    class StraightRoute(route_for(role)):  # type: ignore[misc]  # a class that a function gives
        def answering(self) -> Handler:
            by_fastapi: Handler = super().answering()
            endpoint: Callable[[Request, BaseModel], Coroutine[Any, Any, Response]] = self.endpoint

            async def straight(request: Request) -> Response:
                if request.headers.get("content-type") != "application/json":
                    return await by_fastapi(request)
                try:
                    body = model.model_validate_json(await request.body())
                except ValidationError:
                    return await by_fastapi(request)
                return await endpoint(request, body)

            return straight

    return StraightRoute


class SafeHeaders:
    """Headers on every answer: nothing is sniffed, framed, or told to other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *SAFE_HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
