"""A worker of the service in process, for tests of events and of served lists: its fixtures are the room's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from components.core.settings import Settings, load_settings
from serving.app import create_app
from serving.online import OnlineUser
from serving.state import ServiceState

KNOWN, STRANGER = "household-77", "marked-stranger-4711"


class Reader:
    """A store of one user, whose features are of the first of March."""

    def read(self, user_id: str, *, now: datetime) -> OnlineUser | None:
        if user_id != KNOWN:
            return None
        return OnlineUser(["dairy-0"], [1.0], [1.0], {}, 0.0, moment=now)

    read_at_once = read

    def read_many(self, user_ids: list[str], *, now: datetime) -> list[OnlineUser | None]:
        return [self.read(user_id, now=now) for user_id in user_ids]


@pytest.fixture
def make_worker(bundle_folder: Path, tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    """make_worker(**serve settings): one more worker of the same service."""
    opened: list[TestClient] = []

    def make(**serve: Any) -> TestClient:
        settings = load_settings(home=tmp_path, serve={"bundle": str(bundle_folder), **serve})
        state = ServiceState(settings)
        state.refresh()
        app = create_app(settings, state=state, reader=Reader())
        opened.append(TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 50_000)))
        return opened[-1]

    yield make
    for client in opened:
        client.app.state.behaviour.stop()  # type: ignore[attr-defined]


@pytest.fixture
def worker(make_worker: Callable[..., TestClient]) -> TestClient:
    return make_worker(served_log_share=1.0)


def send(client: TestClient, *events: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = client.post("/events", json={"events": list(events)})
    assert answer.status_code == status, answer.text
    return answer.json()


def event(item: str, kind: str = "view", *, user: str = STRANGER, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_type": kind, **more}


def recommend(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def feedback_rows(settings: Settings) -> list[dict[str, Any]]:
    files = sorted(Path(settings.artifact_root).glob("feedback/*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def settings_of(client: TestClient) -> Settings:
    return client.app.state.service.settings  # type: ignore[attr-defined, no-any-return]


def counted(client: TestClient, line_start: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(line_start))
