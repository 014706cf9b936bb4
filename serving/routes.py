"""The routes. Each is a few lines: ask `Recommender`, count, answer.

Work runs in threads, so that probes always answer; but for a single list that needs nobody else's answer. That one is
ranked where it arrives, in the event loop: it takes some milliseconds, and handing it to a thread and back would cost
a fifth more CPU, most of it caches that are cold on another core.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from components.core.clock import wall_clock
from components.core.errors import WouldWaitError
from serving import metrics
from serving.errors import NotKeptError, RequestError, UnknownItemError
from serving.fresh import FreshStoreError
from serving.online import OnlineStoreError, OnlineUser
from serving.schemas import (
    MOST_RESULTS,
    BatchAnswer,
    BatchRequest,
    ErrorAnswer,
    EventsAnswer,
    EventsRequest,
    ForgetRequest,
    ForgottenAnswer,
    HistoryAnswer,
    LiveAnswer,
    ModelAnswer,
    ReadyAnswer,
    RecommendAnswer,
    RecommendRequest,
    SearchAnswer,
    SimilarAnswer,
    SimilarRequest,
    UserId,
)
from serving.security import route_for, straight_route_for
from serving.written import batch_json

if TYPE_CHECKING:
    from serving.asking import Asking
    from serving.recommend import Recommender

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "pages" / "index.html"

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "The service has API keys, and none was sent."},
    400: {"model": ErrorAnswer, "description": "The body cannot be read at all."},
    403: {
        "model": ErrorAnswer,
        "description": "An unknown API key, or one without the role; or a remote caller, and no keys.",
    },
    404: {"model": ErrorAnswer, "description": "There is no such item, or nothing is known of this user."},
    408: {"model": ErrorAnswer, "description": "The body took too long to arrive."},
    413: {"model": ErrorAnswer, "description": "The body is too long."},
    422: {"model": ErrorAnswer, "description": "The request is not valid."},
    429: {"model": ErrorAnswer, "description": "Too many requests; 'Retry-After' says when to come again."},
    503: {"model": ErrorAnswer, "description": "No bundle is loaded, or what was asked for is down."},
}
BODY = (400, 408, 413, 422)


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: ERRORS[code] for code in codes}


public = APIRouter()
lists = APIRouter(responses=errors(401, 403, 429, 503), route_class=straight_route_for("recommend", RecommendRequest))
recommending = APIRouter(responses=errors(401, 403, 429, 503), route_class=route_for("recommend"))
feedback = APIRouter(responses=errors(401, 403, 429, 503), route_class=route_for("feedback"))
admin = APIRouter(prefix="/admin", responses=errors(401, 403, 429, 503), route_class=route_for("admin"))


@public.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(PAGE, media_type="text/html")


@public.get("/docs.json", include_in_schema=False)
async def description(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


@public.get("/livez")
async def livez() -> LiveAnswer:
    """The worker runs."""
    return LiveAnswer()


@public.get("/readyz", responses={503: {"model": ReadyAnswer}})
async def readyz(request: Request) -> Response:
    """A bundle is loaded, its hashes and golden request were checked, and a warm-up was scored."""
    answer = _readiness(request)
    return JSONResponse(answer.model_dump(), status_code=200 if answer.ready else 503)


@public.get("/metrics", include_in_schema=False)
def prometheus() -> Response:
    body, media_type = metrics.render()
    return Response(body, media_type=media_type)


@lists.post("/recommend", responses=errors(*BODY), response_model=RecommendAnswer)
async def recommend(request: Request, body: RecommendRequest) -> Response:
    """A ranked list with reasons, for a known user, for recent items, or for both."""
    asking = _asking(request)
    await request.app.state.turns.take()
    try:
        try:
            answer = asking.one(body, at_once=True)
        except WouldWaitError:
            answer = await run_in_threadpool(asking.one, body)
    except RequestError as error:
        raise HTTPException(422, str(error)) from error
    # Written already: FastAPI would validate our own answer again, and hop to another thread for it.
    return Response(answer.text, media_type="application/json")


@recommending.post("/recommend/batch", responses=errors(*BODY), response_model=BatchAnswer)
def recommend_batch(request: Request, body: BatchRequest) -> Response:
    """One list for each of many known users, scored together: the lists that /recommend answers, far cheaper."""
    try:
        return Response(batch_json(_asking(request).many(body)), media_type="application/json")
    except RequestError as error:
        raise HTTPException(422, str(error)) from error


@feedback.post("/events", responses=errors(*BODY))
def events(request: Request, body: EventsRequest) -> EventsAnswer:
    """Keep what users did. It counts from their next recommendation on, on every worker within a second.

    They are on disk when this is answered. Send the same `event_id`s again where no answer came.
    """
    current = request.app.state.service.current
    try:
        return request.app.state.behaviour.intake.take(  # type: ignore[no-any-return]  # Starlette's state is untyped
            body.events,
            caller=request.state.caller.name,
            now=wall_clock() if current is None else current.clock(),
            known_items=() if current is None else current.bundle.items.index,
        )
    except RequestError as error:
        raise HTTPException(422, str(error)) from error
    except NotKeptError as error:
        raise HTTPException(503, str(error)) from error


@admin.post("/forget", responses=errors(*BODY))
def forget(request: Request, body: ForgetRequest) -> ForgottenAnswer:
    """Delete what a user did since their features were made. Their features are the pipeline's to delete."""
    behaviour = request.app.state.behaviour
    try:
        return ForgottenAnswer(forgotten=behaviour.fresh.forget(behaviour.pseudonyms.of(body.user_id)))
    except FreshStoreError as error:
        raise HTTPException(503, "The fresh store cannot be written. The service's log says why.") from error


@admin.post("/refresh")
def refresh(request: Request) -> ReadyAnswer:
    """Look at the deploy pointer at once, on the worker that answers."""
    state = request.app.state.service
    state.look()
    return _readiness(request)


@recommending.post("/similar", responses=errors(404, *BODY))
def similar(request: Request, body: SimilarRequest) -> SimilarAnswer:
    """Items like one item."""
    try:
        return _recommender(request).similar(body)
    except UnknownItemError as error:
        raise HTTPException(404, str(error)) from error
    except RequestError as error:
        raise HTTPException(422, str(error)) from error


@recommending.get("/items", responses=errors(422))
def search(
    request: Request,
    q: Annotated[str, Query(min_length=2, max_length=100, description="Words of a title, or an item id.")],
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 12,
) -> SearchAnswer:
    """Find items by name, the most popular first."""
    return _recommender(request).search(q, limit=limit)


@recommending.get("/users/{user_id}/history", responses=errors(404, 422))
def history(request: Request, user_id: Annotated[UserId, PathParameter()]) -> HistoryAnswer:
    """What the online store knows of a user, with names."""
    recommender = _recommender(request)
    try:
        user: OnlineUser | None = request.app.state.reader.read(user_id, now=recommender.clock())
    except OnlineStoreError as error:
        logger.warning("A history was not read: %s", error)
        raise HTTPException(503, "The online store cannot be read. The service's log says why.") from error
    if user is None:
        raise HTTPException(404, "Nothing is known of this user.")
    return recommender.history(user)


@recommending.get("/model")
def model(request: Request) -> ModelAnswer:
    """Which bundle answers, and how it scores."""
    state = request.app.state.service
    return _recommender(request).describe(
        loaded_at=state.loaded_at, roles=request.state.caller.roles, stage=state.stage
    )


def _readiness(request: Request) -> ReadyAnswer:
    state = request.app.state.service
    current = state.current
    return ReadyAnswer(
        ready=current is not None,
        bundle=current.bundle.sha256 if current else None,
        reason=state.reason,
        workers=state.workers(),
    )


def _asking(request: Request) -> Asking:
    _recommender(request)
    asking: Asking = request.app.state.asking()
    return asking


def _recommender(request: Request) -> Recommender:
    state = request.app.state.service
    current: Recommender | None = state.current
    if current is None:
        raise HTTPException(503, f"No bundle is loaded. {state.reason or ''}".strip())
    return current
