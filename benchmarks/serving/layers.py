"""Where the CPU time of one recommendation goes, or of one in a batch, layer by layer, in a process of its own.

    python -m benchmarks.serving.layers --users FILE.json --bundle FOLDER [--batch]   # settings from the environment

Each layer is run alone, for the same users, in the order in which a request passes it. Prints one JSON object:
milliseconds of CPU a request, or a user of a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from components.core.settings import load_settings
from components.model.bundle import Bundle
from components.model.explain import explain_listed
from components.model.retrieval_batch import BatchRetrieval
from serving.app import create_app
from serving.item_rows import ItemRows
from serving.known import histories_of, know, statistics_of
from serving.known_many import know_many
from serving.lists import Ranked
from serving.online import FeastReader
from serving.recommend import Recommender, new_list_id, new_list_ids
from serving.schemas import BatchRequest, RecommendRequest
from serving.state import ServiceState, service_clock
from serving.written import batch_json

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--batch", action="store_true", help="all users in one request")
    given = parser.parse_args()
    torch.set_num_threads(1)
    users: list[str] = list(json.loads(given.users.read_text()))
    settings = load_settings()
    settings = settings.model_copy(update={"serve": settings.serve.model_copy(update={"bundle": str(given.bundle)})})
    bundle = Bundle.load(given.bundle)
    recommender = Recommender(bundle, clock=service_clock(settings, bundle), max_k=100, max_history=1000)
    print(
        json.dumps(
            measure_batch(settings, recommender, users)
            if given.batch
            else asyncio.run(measure(settings, recommender, users[:150]))
        )
    )


async def measure(settings: Any, recommender: Recommender, users: list[str]) -> dict[str, float]:
    bundle, retrieval = recommender.bundle, recommender.retrieval
    now, rows = recommender.clock(), ItemRows(bundle.items.index)
    reader = FeastReader(settings)
    bodies = [json.dumps({"user_id": user, "k": 10}).encode() for user in users]
    requests = [RecommendRequest.model_validate_json(body) for body in bodies]
    online = [reader.read(user, now=now) for user in users]
    known = [know((), user, (), rows=rows, now=now, max_history=recommender.max_history) for user in online]
    histories = [histories_of([one]) for one in known]
    statistics = [statistics_of([one], bundle.statistics_names) for one in known]
    vectors = [retrieval.user_vectors(*both)[0] for both in zip(histories, statistics, strict=True)]
    found = [retrieval.rank(h, s, k=10) for h, s in zip(histories, statistics, strict=True)]
    lists = [Ranked(one.items.tolist(), one.scores.tolist()) for one in found]
    why = [explain_listed(bundle, one) for one in found]
    list_id, false_P = new_list_id(), np.zeros(retrieval.num_items, dtype=bool)

    def ranked(at: int) -> Any:
        return retrieval.rank_known(
            histories[at],
            vectors[at],
            k=10,
            include_seen=False,
            allowed=None,
            rules=bundle.rules,
            with_reasons=False,
        )

    def reasons(at: int) -> Any:
        one, tables = found[at], retrieval.tables
        return (
            tables.lifts_of(one.user, one.items),
            tables.hits_of(one.user, one.items, false_P=false_P),
            explain_listed(bundle, one),
        )

    def alone(call: Callable[[int], Any]) -> float:
        return _milliseconds(call, len(users))

    layers = {
        "request: pydantic": alone(lambda at: RecommendRequest.model_validate_json(bodies[at])),
        "online read": alone(lambda at: reader.read(users[at], now=now)),
        "history": alone(
            lambda at: (
                know((), online[at], (), rows=rows, now=now, max_history=1000),
                histories_of([known[at]]),
                statistics_of([known[at]], bundle.statistics_names),
            )
        ),
        "score: user vector": alone(lambda at: retrieval.user_vectors(histories[at], statistics[at])),
        "score: terms and list": alone(ranked),
        "reasons": alone(reasons),
        "answer: JSON": alone(lambda at: recommender.writer.written(known[at].facts, lists[at], list_id, (), why[at])),
        "all of these, recommend()": alone(lambda at: recommender.recommend(requests[at], online[at])),
    }

    state = ServiceState(settings)
    state.current = recommender
    app = create_app(settings, state=state, reader=reader)
    layers["the app, without a server"] = await _through_app(app, bodies)
    app.state.behaviour.stop()
    return layers


def measure_batch(settings: Any, recommender: Recommender, users: list[str]) -> dict[str, float]:
    """Figures of one user."""
    bundle, retrieval, nothing_new = recommender.bundle, recommender.retrieval, [()] * len(users)
    now, rows = recommender.clock(), ItemRows(bundle.items.index)
    names = bundle.statistics_names
    reader = FeastReader(settings)
    body = json.dumps({"user_ids": users, "k": 10}).encode()
    request = BatchRequest.model_validate_json(body)

    def known(online: Any) -> Any:
        return know_many(online, nothing_new, rows=rows, now=now, max_history=1000, statistics=names)

    online = reader.read_many(users, now=now)
    histories, statistics_BF, facts = known(online)
    vectors = retrieval.user_vectors(histories, statistics_BF)
    batch = BatchRetrieval(retrieval.tables)
    lists = list(batch.lists(histories, vectors, k=10))
    if None in lists:
        raise RuntimeError("Some users are ranked alone: this is not what a batch costs.")

    def written() -> str:
        writer, listed = recommender.writer, zip(facts, lists, new_list_ids(len(users)), strict=True)
        return batch_json([writer.written(one, Ranked(*found), list_id, ()) for one, found, list_id in listed])

    def alone(call: Callable[[], Any]) -> float:
        return _milliseconds(lambda _: call(), 3) / len(users)

    return {
        "request: pydantic": alone(lambda: BatchRequest.model_validate_json(body)),
        "online read": alone(lambda: reader.read_many(users, now=now)),
        "histories": alone(lambda: known(online)),
        "score: user vectors": alone(lambda: retrieval.user_vectors(histories, statistics_BF)),
        "score: lists": alone(lambda: list(batch.lists(histories, vectors, k=10))),
        "answers: JSON": alone(written),
        "all of these, recommend_many()": alone(
            lambda: recommender.recommend_many(request, reader.read_many(users, now=now), fresh=nothing_new)
        ),
    }


async def _through_app(app: Any, bodies: list[bytes]) -> float:
    async def ask(body: bytes) -> int:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/recommend",
            "raw_path": b"/recommend",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        status = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)

        await app(scope, receive, send)
        return status

    best = float("inf")
    for _ in range(ROUNDS + 1):
        started = time.process_time()
        for body in bodies:
            status = await ask(body)
            if status != 200:
                raise RuntimeError(f"The app answered {status}.")
        best = min(best, (time.process_time() - started) / len(bodies) * 1000)
    return best


def _milliseconds(call: Callable[[int], Any], count: int) -> float:
    """CPU milliseconds a call, the best of some rounds: what else the machine does only ever adds."""
    best = float("inf")
    with torch.inference_mode():
        for _ in range(ROUNDS):
            started = time.process_time()
            for at in range(count):
                call(at)
            best = min(best, (time.process_time() - started) / count * 1000)
    return best


if __name__ == "__main__":
    main()
