"""The app: how routes, guards and the bundle's life are put together for one worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from components.core.settings import Settings
from serving.behaviour import Behaviour
from serving.limits import BodyLimit, Turns
from serving.metrics import RequestMetrics
from serving.online import FeastReader, UserReader
from serving.routes import admin, feedback, lists, public, recommending
from serving.schemas import ErrorAnswer, FieldProblem
from serving.security import BEARER, Gate, SafeHeaders
from serving.state import ServiceState
from serving.status import include_status

if TYPE_CHECKING:
    from serving.asking import Asking

logger = logging.getLogger(__name__)

PAGES = Path(__file__).parent / "pages"

# Requests that a worker works on side by side. More threads only queue for the interpreter.
THREADS = 8

DESCRIPTION = """Recommendations from a graph neural network over the shop's items.

`POST /recommend` takes a known user, a list of recent items, or both. Histories are aged to the service's clock: by
default the bundle's `as_of`, so that a finished log is served as it was on its last day."""


def create_app(settings: Settings, *, state: ServiceState | None = None, reader: UserReader | None = None) -> FastAPI:
    """The app of one worker. Bundle and online store are opened when it starts, unless they are given."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        logging.getLogger("serving").setLevel(logging.INFO)  # BentoML leaves the root logger at WARNING
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        # Not awaited: a worker answers its probes while torch, Feast and the bundle load.
        following = asyncio.create_task(_follow(app, settings))
        app.state.behaviour.start()
        try:
            yield
        finally:
            following.cancel()
            app.state.service.leave()
            app.state.behaviour.stop()

    app = FastAPI(
        title="Basketweave",
        version=_version(),
        description=DESCRIPTION,
        docs_url=None,  # these two load scripts from a CDN
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.gate = Gate(settings.serve)
    app.state.turns = Turns()
    app.state.service = state or ServiceState(settings)
    app.state.reader = reader
    app.state.behaviour = Behaviour.of_settings(settings, observer=app.state.service)
    app.state.asking = _asking(app)
    for router in (public, lists, recommending, feedback, *([admin] if settings.serve.admin else [])):
        app.include_router(router)
    include_status(app)
    app.openapi = _with_keys(app.openapi)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    app.mount("/pages", StaticFiles(directory=PAGES), name="pages")
    app.add_exception_handler(RequestValidationError, _explain_invalid)
    app.add_exception_handler(HTTPException, _explain_refusal)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.serve.max_body_bytes,
        timeout_seconds=settings.serve.body_timeout_seconds,
    )
    app.add_middleware(SafeHeaders)
    app.add_middleware(RequestMetrics)  # added last, so it is the outermost and sees every answer
    return app


def _asking(app: FastAPI) -> Callable[[], Asking]:
    """Who answers; made at the first request, since torch loads with it."""

    @cache
    def asking() -> Asking:
        from serving.asking import Asking

        return Asking(app.state.service, app.state.reader, app.state.behaviour)

    return asking


def _with_keys(description: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The API's description, with the scheme that guarded routes name."""

    def whole() -> dict[str, Any]:
        found = description()
        found.setdefault("components", {})["securitySchemes"] = {"ApiKey": BEARER}
        return found

    return whole


async def _follow(app: FastAPI, settings: Settings) -> None:
    """Open the online store, load the bundle, and from then on look for another one."""
    state = app.state.service
    told: str | None = None
    while True:
        try:
            if app.state.reader is None:
                app.state.reader = await asyncio.to_thread(FeastReader, settings)
            await asyncio.to_thread(state.look)
            if state.current is None and state.reason != told:
                told = state.reason
                logger.warning("Not ready, nothing is recommended yet: %s", told)
        except Exception:
            # A defect of ours must not end the polling: a worker that never swaps again is worse than a log line.
            logger.exception("Looking for another bundle failed.")
        await asyncio.sleep(settings.serve.pointer_poll_seconds)


async def _explain_invalid(request: Request, error: Exception) -> JSONResponse:
    """422 with one sentence, and the fields. The input is not repeated: it can hold a user id."""
    assert isinstance(error, RequestValidationError)
    problems = [
        FieldProblem(field=".".join(str(part) for part in problem["loc"][1:]) or "body", problem=_problem(problem))
        for problem in error.errors()
    ]
    first = problems[0]
    return _error(422, f"{first.field}: {first.problem}.", fields=problems)


def _problem(problem: dict[str, Any]) -> str:
    if problem["type"] == "extra_forbidden":
        return "this field is unknown"
    return str(problem["msg"]).rstrip(".")


async def _explain_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _error(
    status: int, detail: str, *, fields: list[FieldProblem] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    body = ErrorAnswer(detail=detail, fields=fields or [])
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def _version() -> str:
    try:
        return metadata.version("basketweave")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0+checkout"
