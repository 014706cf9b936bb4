"""The routes. Each is a few lines: ask `Recommender`, count, answer. Work runs in threads, so probes always answer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse, Response

from serving import metrics
from serving.errors import RequestError, UnknownItemError
from serving.online import OnlineStoreError, OnlineUser
from serving.schemas import (
    MOST_RESULTS,
    ErrorAnswer,
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

if TYPE_CHECKING:
    from serving.recommend import Recommender

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "pages" / "index.html"

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "The service has API keys, and none was sent."},
    403: {
        "model": ErrorAnswer,
        "description": "An unknown API key; or a remote caller, and no keys.",
    },
    404: {"model": ErrorAnswer, "description": "There is no such item, or nothing is known of this user."},
    413: {"model": ErrorAnswer, "description": "The body is too long."},
    422: {"model": ErrorAnswer, "description": "The request is not valid."},
    503: {"model": ErrorAnswer, "description": "No bundle is loaded, or the online store is down."},
}


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: ERRORS[code] for code in codes}


public = APIRouter()
guarded = APIRouter(responses=errors(401, 403, 503))


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
    state = request.app.state.service
    current = state.current
    answer = ReadyAnswer(
        ready=current is not None,
        bundle=current.bundle.sha256 if current else None,
        reason=state.reason,
        workers=state.workers(),
    )
    return JSONResponse(answer.model_dump(), status_code=200 if answer.ready else 503)


@public.get("/metrics", include_in_schema=False)
def prometheus() -> Response:
    body, media_type = metrics.render()
    return Response(body, media_type=media_type)


@guarded.post("/recommend", responses=errors(413, 422))
def recommend(request: Request, body: RecommendRequest) -> RecommendAnswer:
    """A ranked list with reasons, for a known user, for recent items, or for both."""
    recommender = _recommender(request)
    user, degraded = None, []
    if body.user_id is not None:
        try:
            user = request.app.state.reader.read(body.user_id, now=recommender.clock())
        except OnlineStoreError:
            degraded.append("online_store")
            metrics.FALLBACKS.labels("online_store").inc()
    try:
        answer = recommender.recommend(body, user, degraded=degraded)
    except RequestError as error:
        raise HTTPException(422, str(error)) from error
    metrics.RECOMMENDATIONS.labels(answer.source, answer.bundle[:12]).inc()
    if body.user_id is not None and answer.source == "popularity" and not degraded:
        metrics.FALLBACKS.labels("unknown_user").inc()
    if not answer.items:
        metrics.EMPTY_LISTS.inc()
    if answer.feature_age_seconds is not None:
        metrics.FEATURE_AGE.observe(answer.feature_age_seconds)
    return answer


@guarded.post("/similar", responses=errors(404, 413, 422))
def similar(request: Request, body: SimilarRequest) -> SimilarAnswer:
    """Items like one item."""
    try:
        return _recommender(request).similar(body)
    except UnknownItemError as error:
        raise HTTPException(404, str(error)) from error
    except RequestError as error:
        raise HTTPException(422, str(error)) from error


@guarded.get("/items", responses=errors(422))
def search(
    request: Request,
    q: Annotated[str, Query(min_length=2, max_length=100, description="Words of a title, or an item id.")],
    limit: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 12,
) -> SearchAnswer:
    """Find items by name, the most popular first."""
    return _recommender(request).search(q, limit=limit)


@guarded.get("/users/{user_id}/history", responses=errors(404, 422))
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


@guarded.get("/model")
def model(request: Request) -> ModelAnswer:
    """Which bundle answers, and how it scores."""
    recommender = _recommender(request)
    return recommender.describe(loaded_at=request.app.state.service.loaded_at)


def _recommender(request: Request) -> Recommender:
    state = request.app.state.service
    current: Recommender | None = state.current
    if current is None:
        raise HTTPException(503, f"No bundle is loaded. {state.reason or ''}".strip())
    return current
