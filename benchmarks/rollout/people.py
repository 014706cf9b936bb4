"""The simulator's people at the service: they ask for lists over HTTP, and their clicks go back as events."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import datetime

import httpx
import numpy as np

from components.simulate.clicks import ClickModel
from components.simulate.settings import WorldSettings
from components.simulate.world import World

LIST_LENGTH = 10
# Lists that are answered, and clicked on, together.
BATCH = 20
# A person looks at the list on the shop's first page, where what was bought before may come again.
REQUEST = {"k": LIST_LENGTH, "include_seen": True}


def lived_world(settings: WorldSettings) -> World:
    """The world on the evening of its last day: what people like, and what they have bought lately."""
    world = World(settings)
    for _ in range(settings.days):
        for _batch in world.live_day():
            pass
    return world


class People:
    """Callers without a pause, until told to stop. A failed request is counted, never hidden."""

    def __init__(self, world: World, *, url: str, moment: datetime, seed: int, callers: int = 2) -> None:
        self._world = world
        self._clicks = ClickModel(world)
        self._url = url
        self._moment = moment
        self._seed = seed
        self._callers = callers
        self._has_ended = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._next_list = 0
        self.statuses: Counter[int] = Counter()
        self.lists: Counter[str] = Counter()
        """Lists by bundle."""
        self.clicks: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()

    def __enter__(self) -> People:
        self._threads = [threading.Thread(target=self._visit, args=(one,)) for one in range(self._callers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, caller: int) -> None:
        rng = np.random.default_rng([self._seed, caller])
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as client:
            while not self._has_ended.is_set():
                self._round(client, [f"u{number:07d}" for number in rng.integers(0, self._world.settings.users, BATCH)])

    def _round(self, client: httpx.Client, users: list[str]) -> None:
        asked, shown, bundles = [], [], []
        for user in users:
            answer = client.post("/recommend", json={"user_id": user, **REQUEST})
            with self._lock:
                self.statuses[answer.status_code] += 1
            if answer.status_code != 200:
                continue
            body = answer.json()
            asked.append(user)
            shown.append([item["item_id"] for item in body["items"]])
            bundles.append(body["bundle"])
            with self._lock:
                self.lists[body["bundle"]] += 1
                self.degraded.update(body["degraded"])
        if not asked:
            return
        with self._lock:
            first = self._next_list
            self._next_list += len(asked)
        answers = self._clicks.answer(asked, shown, moment=self._moment, first_list=first)
        events = []
        for row, place in zip(*np.nonzero(answers.is_clicked), strict=True):
            events.append({"user_id": asked[row], "item_id": shown[row][place], "event_type": "click"})
            with self._lock:
                self.clicks[bundles[row]] += 1
        if events:
            sent = client.post("/events", json={"events": events})
            with self._lock:
                self.statuses[sent.status_code] += 1
