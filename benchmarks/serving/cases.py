"""The cases: each returns a figure a name, ratios among them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.serving.load import Load, offer, one_by_one
from benchmarks.serving.servers import Server, free_port, running
from benchmarks.serving.worlds import Built
from benchmarks.training.measure import run_contestant
from components.core.clock import wall_clock
from components.core.live import move_pointer
from components.core.store import Store
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.train.index import measure_retrieval
from serving.online import FeastReader

CASES = {
    "cpu": "CPU a request, 1 worker, warm, against the bare handler",
    "layers": "CPU of the layers of one request, milliseconds",
    "latency": "p99 at half of the smaller peak, 2 workers, against the bare handler at the same rate",
    "growth": "p99 of a million items against a hundred thousand, 1 worker, same rate",
    "retrieval": "Recall of the lists against the whole score over every item, and items scored for one",
    "batch": "1,000 users in one request against single requests, CPU a user",
    "swap": "The pointer moves back and forth under load, 2 workers",
    "memory": "Private memory (USS) of a worker, MB",
}
Figures = dict[str, Any]
K = 10
USERS = 400
WARM_UP = 300
TURNS = 10
LIKE = {"dense": "service", "same": "service, no reasons", "reasons": "service"}
"""Each arithmetic of the bare handler, and what of the service is held against it."""


@dataclass
class Bench:
    """What the cases share."""

    built: Built
    other: Callable[[], Built]
    """Another bundle of the same shop, trained from another seed."""
    million: Callable[[], Built]
    logs: Path
    seconds: float
    _users: dict[str, Path] = field(default_factory=dict)

    def cpu(self) -> Figures:
        with_reasons = self.bodies(self.built)
        without = [json.dumps(json.loads(body) | {"reasons": False}).encode() for body in with_reasons]
        with contextlib.ExitStack() as running_servers:
            service = running_servers.enter_context(self.service())
            asked = {"service": (service, with_reasons), "service, no reasons": (service, without)}
            sizes = {
                name: one_by_one(service.port, bodies, count=WARM_UP).answer_bytes
                for name, (_, bodies) in asked.items()
            }
            for arithmetic, like in LIKE.items():
                bare = self.bare(arithmetic=arithmetic, answer_bytes=sizes[like])
                asked[arithmetic] = running_servers.enter_context(bare), with_reasons
                one_by_one(asked[arithmetic][0].port, with_reasons, count=WARM_UP)
            spent = dict.fromkeys(asked, 0.0)
            # By turns: what else the machine does in the meantime falls on all of them alike.
            for _ in range(TURNS):
                for name, (server, bodies) in asked.items():
                    cost, sizes[name] = self.cpu_a_request(server, self.built, bodies=bodies, warm_up=0, turns=TURNS)
                    spent[name] += cost / TURNS
        return {
            **{f"{name}, ms": cost for name, cost in spent.items()},
            **{f"ratio to {name}": spent[like] / spent[name] for name, like in LIKE.items()},
            **{f"{name}, bytes an answer": size for name, size in sizes.items()},
        }

    def layers(self, *, users: int = USERS, options: Sequence[str] = ()) -> Figures:
        file, folder = self.users_file(self.built, count=users), self.built.folder
        with _environment(self.environment(self.built)):
            done = run_contestant(
                ["-m", "benchmarks.serving.layers", "--users", str(file), "--bundle", str(folder), *options],
                threads=1,
            )
        return dict(done.answer)

    def latency(self) -> Figures:
        bodies = self.bodies(self.built)
        with self.service(workers=2) as mine:
            one_by_one(mine.port, bodies, count=WARM_UP)
            answer_bytes = offer(mine.port, bodies, rate=20, seconds=1).answer_bytes
            # Side by side, each asked in its turn: an idle one takes nothing, and both see the machine at one time.
            with self.bare(arithmetic="dense", answer_bytes=answer_bytes, workers=2) as bare:
                one_by_one(bare.port, bodies, count=WARM_UP)
                peaks = {"service": self.peak(mine, bodies), "bare": self.peak(bare, bodies)}
                rate = min(peaks.values()) / 2  # one that both can keep up
                before = time.process_time()
                service = offer(mine.port, bodies, rate=rate, seconds=self.seconds)
                generator = (time.process_time() - before) / service.seconds
                dense = offer(bare.port, bodies, rate=rate, seconds=self.seconds)
        return {
            **{f"{name}, peak, requests/s": peak for name, peak in peaks.items()},
            "rate, requests/s": rate,
            "load generator, CPU s/s": generator,
            **_latencies("service", service),
            **_latencies("bare", dense),
            "ratio of p99": service.percentile(99) / dense.percentile(99),
        }

    def growth(self) -> Figures:
        million = self.million()
        figures: Figures = {}
        found: dict[str, Load] = {}
        for name, built in (("100k", self.built), ("1M", million)):
            bodies = self.bodies(built)
            with self.service(built=built) as server:
                figures[f"{name}, CPU ms"] = self.cpu_a_request(server, built)[0]
                rate = figures.setdefault("rate, requests/s", self.peak(server, bodies) / 4)
                found[name] = offer(server.port, bodies, rate=rate, seconds=self.seconds)
                figures |= _latencies(name, found[name])
        figures["ratio of p99"] = found["1M"].percentile(99) / found["100k"].percentile(99)
        figures["ratio of CPU"] = figures["1M, CPU ms"] / figures["100k, CPU ms"]
        return figures

    def retrieval(self) -> Figures:
        figures: Figures = {}
        for name, built in (("100k", self.built), ("1M", self.million())):
            users = self.users_file(built)
            code = f"from benchmarks.serving.cases import measured; measured({str(built.folder)!r}, {str(users)!r})"
            figures |= {
                f"{name}, {what}": value for what, value in run_contestant(["-c", code], threads=1).answer.items()
            }
        return figures

    def batch(self) -> Figures:
        known = list(json.loads(self.users_file(self.built, count=1000).read_text()))
        body = json.dumps({"user_ids": known, "k": K}).encode()
        single, a_user, walls = 0.0, 0.0, []
        with self.service() as server:
            one_by_one(server.port, [body], count=1, path="/recommend/batch")
            one_by_one(server.port, self.bodies(self.built), count=WARM_UP)
            # By turns: what else the machine does in the meantime falls on both alike.
            for _ in range(TURNS):
                single += self.cpu_a_request(server, self.built, warm_up=0, turns=TURNS)[0] / TURNS
                singles = one_by_one(server.port, self.bodies(self.built), count=WARM_UP // TURNS)
                before = server.cpu_seconds()
                load = one_by_one(server.port, [body], count=1, path="/recommend/batch")
                a_user += (server.cpu_seconds() - before) / TURNS / len(known) * 1000
                if load.failed:
                    raise RuntimeError(f"A batch failed: {load.statuses}.")
                walls.append((singles.percentile(50), load.percentile(50) / len(known)))
        wall, wall_a_user = np.median(walls, axis=0).tolist()
        return {
            "users": len(known),
            "single request, ms": single,
            "in a batch, ms a user": a_user,
            "ratio": single / a_user,
            "single request, wall ms": wall,
            "in a batch, wall ms a user": wall_a_user,
            "ratio of wall": wall / wall_a_user,
            **{f"layer {layer}": ms for layer, ms in self.layers(users=len(known), options=["--batch"]).items()},
        }

    def swap(self) -> Figures:
        other = self.other()
        store = Store(self.built.settings.artifact_root)
        bodies = self.bodies(self.built)
        move_pointer(store, self.built.bundle, previous=None, run_id="bench")
        with self.service(workers=2, follows_pointer=True) as server:
            one_by_one(server.port, bodies, count=WARM_UP)
            rate = self.peak(server, bodies) / 4
            usual = offer(server.port, bodies, rate=rate, seconds=self.seconds)
            moves: list[float] = []

            def back_and_forth() -> None:
                for bundle in (other.bundle, self.built.bundle, other.bundle):
                    time.sleep(self.seconds / 4)
                    move_pointer(store, bundle, previous=None, run_id="bench")
                    moves.append(wall_clock().timestamp())

            moving = threading.Thread(target=back_and_forth)
            moving.start()
            swapped = offer(server.port, bodies, rate=rate, seconds=self.seconds)
            moving.join()
        return {
            "rate, requests/s": rate,
            "moves": len(moves),
            "requests": sum(swapped.statuses.values()),
            "failed": swapped.failed,
            **_latencies("usual", usual),
            **_latencies("with moves", swapped),
            "ratio of p99": swapped.percentile(99) / usual.percentile(99),
        }

    def memory(self) -> Figures:
        figures: Figures = {}
        for workers in (1, 2):
            with self.service(workers=workers) as server:
                for _ in range(workers):
                    one_by_one(server.port, self.bodies(self.built), count=WARM_UP)
                figures[f"USS, {workers} worker(s)"] = server.largest_uss_mb()
                figures[f"RSS, {workers} worker(s)"] = server.largest_rss_mb()
        for what, code in IMPORTS.items():
            figures[f"of it: {what}"] = run_contestant(["-c", code], threads=1).answer["uss_mb"]
        return figures

    def cpu_a_request(
        self,
        server: Server,
        built: Built,
        *,
        bodies: list[bytes] | None = None,
        warm_up: int = WARM_UP,
        turns: int = 1,
    ) -> tuple[float, int]:
        """CPU milliseconds of one request of one caller, and the bytes of an answer. `turns`: into how many calls the
        requests are divided."""
        bodies = bodies or self.bodies(built)
        if warm_up:
            one_by_one(server.port, bodies, count=warm_up)
        count = max(int(60 * self.seconds), 150) // turns
        before = server.cpu_seconds()
        load = one_by_one(server.port, bodies, count=count)
        if load.failed:
            raise RuntimeError(f"Requests failed: {load.statuses}.")
        return (server.cpu_seconds() - before) / count * 1000, load.answer_bytes

    def peak(self, server: Server, bodies: list[bytes]) -> float:
        """Requests a second that come through where far more are offered at once than it can do."""
        load = offer(server.port, bodies, rate=2000, seconds=0.4)
        return load.statuses[200] / load.seconds

    def users_file(self, built: Built, *, count: int = USERS) -> Path:
        """Histories of some of the shop's users, as the online store knows them."""
        path = self.logs / f"users-{built.settings.project}-{count}.json"
        if path.is_file():
            return path
        store = Store(built.settings.artifact_root)
        key = next(key for key in store.list_dir("features") if store.exists(f"features/{key}/manifest.json"))
        folder = Path(store.uri(f"features/{key}"))
        ids = sorted(set(pq.read_table(folder / "user_history.parquet", columns=["user_id"])["user_id"].to_pylist()))
        random.Random(0).shuffle(ids)
        index = set(pq.read_table(built.folder / "items.parquet", columns=["item_id"])["item_id"].to_pylist())
        reader, now = FeastReader(built.settings), wall_clock()
        known: dict[str, Any] = {}
        for user_id in ids:
            user = reader.read(user_id, now=now)
            if user is None:
                continue
            weights, ages = (np.asarray(column).tolist() for column in (user.weights, user.ages_days))
            rows = [row for row in zip(user.items, weights, ages, strict=True) if row[0] in index]
            if rows and len(known) < count:
                items, weights, ages = (list(column) for column in zip(*rows, strict=True))
                age = min(ages)
                known[user_id] = {"items": items, "weights": weights, "ages_days": [one - age for one in ages]}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
        return path

    def bodies(self, built: Built) -> list[bytes]:
        known = json.loads(self.users_file(built).read_text())
        return [json.dumps({"user_id": user_id, "k": K}).encode() for user_id in known]

    def environment(self, built: Built) -> dict[str, str]:
        settings = built.settings
        return {"BASKETWEAVE_HOME": str(settings.home), "BASKETWEAVE_PROJECT": settings.project}

    @contextlib.contextmanager
    def service(
        self, *, workers: int = 1, built: Built | None = None, follows_pointer: bool = False
    ) -> Iterator[Server]:
        built, port = built or self.built, free_port()
        bundle = [] if follows_pointer else ["--bundle", str(built.folder)]
        arguments = ["-m", "serving", *bundle, "--port", str(port), "--workers", str(workers)]
        # Shedding is not what is measured here: it would make the peak look higher than it is.
        extra = {"BASKETWEAVE_SERVE__MAX_CONCURRENT_REQUESTS": "4096"}
        log = self.logs / "service.log"
        with running(arguments, port=port, environment=self.environment(built) | extra, log=log) as server:
            time.sleep(2)  # every worker is up, and has read the pointer
            yield server

    @contextlib.contextmanager
    def bare(self, *, arithmetic: str, answer_bytes: int, workers: int = 1) -> Iterator[Server]:
        port = free_port()
        arguments = ["-m", "benchmarks.serving.bare", "--bundle", str(self.built.folder)]
        arguments += ["--histories", str(self.users_file(self.built)), "--port", str(port), "--workers", str(workers)]
        arguments += ["--arithmetic", arithmetic, "--bytes", str(answer_bytes)]
        with running(arguments, port=port, environment={}, log=self.logs / "bare.log") as server:
            time.sleep(2)
            yield server


def measured(folder: str, users: str) -> None:
    """Print what a bundle that is built now says of its retrieval, for the users of a file."""
    bundle = Bundle.load(Path(folder))
    known = list(json.loads(Path(users).read_text()).values())
    histories = Histories.from_lists(
        [[bundle.items.index[item] for item in row["items"]] for row in known],
        [row["weights"] for row in known],
        [row["ages_days"] for row in known],
    )
    nothing = torch.full((len(known), len(bundle.statistics_names)), torch.nan)
    print(json.dumps(measure_retrieval(bundle.scorer, histories, nothing, seed=0)))


_SAY = "import json, psutil; print(json.dumps({'uss_mb': psutil.Process().memory_full_info().uss / 1e6}))"
IMPORTS = {
    "Python and psutil": _SAY,
    "… and torch": f"import torch; {_SAY}",
    "… and the service's imports": f"import bentoml, serving.app, serving.recommend, pyarrow; {_SAY}",
}


def _latencies(name: str, load: Load) -> Figures:
    return {
        f"{name}, p50 ms": load.percentile(50),
        f"{name}, p99 ms": load.percentile(99),
        f"{name}, failed": load.failed,
    }


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
