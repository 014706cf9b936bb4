"""Airflow's REST API, as a person's browser or another system asks it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from components.orchestration.scheduler import SchedulerRecord

T = TypeVar("T")

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
LONG_SECONDS = 900.0


def call(
    record: SchedulerRecord, path: str, body: Mapping[str, Any] | None = None, *, method: str | None = None
) -> Any:
    """GET, or POST where there is a body, or what `method` says."""
    with OPENER.open(f"{record.url}/auth/token", timeout=30) as response:
        token = json.load(response)["access_token"]
    request = urllib.request.Request(
        f"{record.url}/api/v2/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method=method,
    )
    with OPENER.open(request, timeout=30) as response:
        return json.load(response)


def until(find: Callable[[], T | None], *, what: str) -> T:
    """What `find` finds, once it finds something."""
    deadline = time.monotonic() + LONG_SECONDS
    while not (found := find()):
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
    return found


def tell_asset(record: SchedulerRecord, uri: str, *, extra: Mapping[str, Any] | None = None) -> None:
    """An event of the asset, once a DAG that names it has been read."""

    def asset_id() -> int | None:
        found = call(record, "assets?limit=100")["assets"]
        return next((one["id"] for one in found if one["uri"] == uri), None)

    call(record, "assets/events", {"asset_id": until(asset_id, what=f"{uri} is known"), "extra": dict(extra or {})})
