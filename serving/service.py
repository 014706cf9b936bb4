"""How BentoML runs the app: `serving.service:RecommenderService`. Imported by the arbiter and by every worker.

The native API of BentoML costs a third more per request than a mounted FastAPI app, so the whole API is mounted.
The mount also lets BentoML run the app's start and end.
"""

from __future__ import annotations

import math
import sys

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from components.core.settings import load_settings
from serving.app import create_app

# While a bundle loads in a thread, a request waits for the interpreter this long each time that it needs it. Python's
# own 5 ms, several times a request, would be what a swap is noticed by.
SWITCH_SECONDS = 0.0001
sys.setswitchinterval(SWITCH_SECONDS)

settings = load_settings()
app = create_app(settings)


class StraightToApp:
    """Hand every request to the app, past BentoML's own routes.

    BentoML's `/readyz` says that a process has started, ours that a bundle answers; its other pages are not needed.
    Its limits on time and concurrency lie outside this and hold.
    """

    def __init__(self, bento_app: ASGIApp) -> None:
        self.bento_app = bento_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["type"] == "http" else self.bento_app)(scope, receive, send)


@bentoml.service(
    name="basketweave",
    workers=settings.serve.workers,
    traffic={
        "timeout": math.ceil(settings.serve.request_timeout_seconds),
        "max_concurrency": settings.serve.max_concurrent_requests,
    },
    # Both would write request paths, which can hold a user id, into labels and logs.
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    # Spans that are never exported would cost a tenth of a request.
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(app, path="/")
class RecommenderService:
    """Recommendations by a graph neural network over the shop's items."""

    def __is_ready__(self) -> bool:
        return app.state.service.current is not None


RecommenderService.add_asgi_middleware(StraightToApp)  # type: ignore[attr-defined]  # the decorator returns a Service
