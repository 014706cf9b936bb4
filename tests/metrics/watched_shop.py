"""A small shop that is watched: the real pipeline once, its service, a Pushgateway, and Prometheus over both."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from metric_servers import Server, prometheus, pushgateway, query, scraped, until

from components.core.clock import wall_clock
from components.core.live import ServiceRecord, find_service, read_pointer
from components.core.rollout import Rollout, write_rollout
from components.core.settings import Settings, load_settings
from components.core.step import latest
from components.core.store import Store

ROOT = Path(__file__).parents[2]
LENIENT_RUN = ROOT / "tests" / "pipeline" / "lenient_run.py"
KEY = "a-key-of-the-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}
PROJECT = "shop"
SIZE = ["--users", "300", "--items", "200", "--days", "60", "--sessions-per-user-day", "0.3", "--seed", "7"]
DEFECTS = ["--defect", "negative_price=0.02", "--defect", "null_timestamp=0.01"]
SMALL = {
    "SPLIT__WINDOW_DAYS": "14",
    "SPLIT__TRAINING_WINDOWS": "1",
    "TRAIN__MAX_EPOCHS": "1",
    "TRAIN__EMBEDDING_DIM": "16",
    "EVALUATE__BOOTSTRAP_RESAMPLES": "200",
    "METRICS__CPU_HOUR_PRICE": "0.04",
    "METRICS__GPU_HOUR_PRICE": "2.5",
    "SERVE__API_KEYS": f'["{KEY}"]',
    "SERVE__MAX_BODY_BYTES": "4096",
    "SERVE__POINTER_POLL_SECONDS": "0.5",
    "SERVE__REQUESTS_PER_SECOND": "50",
    "SERVE__REQUEST_BURST": "100",
    "SERVE__SERVED_LOG_SHARE": "1",
    "ORCHESTRATION__RETRIES": "0",
    "PROJECT": PROJECT,
}


@dataclass(frozen=True)
class WatchedShop:
    """`environment` is what commands of the shop run with."""

    home: Path
    world: Path
    environment: dict[str, str]
    gateway: Server
    prometheus: Server
    service: ServiceRecord

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.home, project=PROJECT)

    def ask(self, expr: str) -> list[dict[str, Any]]:
        return query(self.prometheus, expr)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.service.url, timeout=20, trust_env=False)


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`basketweave …`, with a gate that a small world can pass."""
    return subprocess.run(
        [sys.executable, str(LENIENT_RUN), *arguments], env=environment, capture_output=True, text=True, check=False
    )


WATCH_DRIFT = """
import sys
from pathlib import Path
from components.core.settings import load_settings
from components.orchestration.one_shot import run_once
from components.orchestration.watcher import Watcher
log = Path(sys.argv[1])
outcome = run_once("monitoring", settings=load_settings(), parameters={}, watcher=Watcher(), log=log)
sys.exit(0 if outcome.succeeded else log.read_text()[-3000:])
"""


def watch_drift(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The DAG `monitoring` once, in a process of its own."""
    log = Path(environment["BASKETWEAVE_HOME"]) / "monitoring.log"
    arguments = [sys.executable, "-c", WATCH_DRIFT, str(log)]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def watched_shop(folder: Path, *, rules: list[dict[str, Any]]) -> Iterator[WatchedShop]:
    """`rules` are Prometheus' rule groups."""
    home, world = folder / "home", folder / "world"
    environment = {**os.environ, "BASKETWEAVE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment |= {f"BASKETWEAVE_{name}": value for name, value in SMALL.items()}
    environment["BASKETWEAVE_SOURCE__PROFILE"] = "contract"
    environment["BASKETWEAVE_SOURCE__EVENTS"] = f"{world}/events/*.parquet"
    environment["BASKETWEAVE_SOURCE__CATALOG"] = f"{world}/catalog.parquet"
    made = command(environment, "simulate", "--out", str(world), *SIZE, *DEFECTS)
    assert made.returncode == 0, made.stdout + made.stderr
    with pushgateway() as gateway:
        environment["BASKETWEAVE_METRICS__PUSHGATEWAY"] = gateway.url
        try:
            done = command(environment, "run")
            assert done.returncode == 0, done.stdout + done.stderr
            service = find_service(load_settings(home=home, project=PROJECT))
            assert service is not None, done.stdout
            rule_file = folder / "rules.yaml"
            rule_file.write_text(yaml.safe_dump({"groups": rules}))
            scrapes = [
                scraped("basketweave", service.port, labels={"namespace": "shop"}),
                scraped("pushgateway", gateway.port, honor_labels=True),
            ]
            with prometheus({"scrape_configs": scrapes}, rules=[rule_file]) as server:
                yield WatchedShop(
                    home=home, world=world, environment=environment, gateway=gateway, prometheus=server, service=service
                )
        finally:
            command(environment, "stop")


def force_every_outcome(shop: WatchedShop) -> None:
    """Traffic in which everything happens that the service counts, twice, so that rates have two points."""
    for stage, share in (("shadow", 0.0), ("canary", 0.5)):
        _offer_challenger(shop, stage=stage, share=share)
        for _ in range(3):
            _ask_in_every_way(shop)
            time.sleep(1.2)
    _spend_the_rate(shop)
    time.sleep(1.2)
    _ask_in_every_way(shop)
    # The challenger is taken back, and the DAG that watches drift runs once.
    for done in (command(shop.environment, "rollback", "--reason", "the test is over"), watch_drift(shop.environment)):
        assert done.returncode == 0, done.stdout + done.stderr
    time.sleep(2.5)  # two more scrapes


def _offer_challenger(shop: WatchedShop, *, stage: Any, share: float) -> None:
    """Another bundle of the same features takes part from now on."""
    store = Store(shop.settings.artifact_root)
    pointer = read_pointer(store)
    assert pointer is not None
    challenger = latest(store, "bundle")
    if challenger.sha256 == pointer.bundle.sha256:
        done = command({**shop.environment, "BASKETWEAVE_TRAIN__SEED": "7"}, "step", "train")
        assert done.returncode == 0, done.stdout + done.stderr
        challenger = latest(store, "bundle")
    assert challenger.sha256 != pointer.bundle.sha256
    now = wall_clock()
    rollout = Rollout(
        id="live-test",
        challenger=challenger,
        champion=pointer.bundle,
        stage=stage,
        share=share,
        salt=secrets.token_hex(8),
        started_at=now,
        stage_started_at=now,
        run_id="live-test",
    )
    write_rollout(store, rollout)
    label = f'basketweave_rollout_info{{stage=~"{stage}.*"}} == 1'
    until(lambda: shop.ask(label), what=f"a worker takes part in the {stage}")
    with shop.client() as client:
        until(lambda: client.get("/readyz").status_code == 200, what="the service is ready")


def _ask_in_every_way(shop: WatchedShop) -> None:
    with shop.client() as client:

        def post(path: str, body: Any, headers: dict[str, str] = HEADERS) -> httpx.Response:
            return client.post(path, json=body, headers=headers)

        known = _some_users(shop)
        lists = [post("/recommend", {"user_id": user, "k": 5}) for user in known]
        assert {answer.status_code for answer in lists} == {200}, lists[0].text
        shown = lists[0].json()["items"]
        assert shown
        post("/recommend", {"items": [shown[0]["item_id"]], "k": 5})
        post("/recommend", {"user_id": "nobody-of-this-name", "k": 5})
        assert post("/recommend", {"price_min": 1e9, "k": 5}).json()["items"] == []
        assert post("/recommend", {"category": "no such category", "k": 5}).status_code == 422
        assert post("/recommend", {"k": 0}).status_code == 422
        assert post("/recommend", {"user_id": "x" * 5000}).status_code == 413
        assert post("/recommend", {"k": 5}, {}).status_code == 401
        assert post("/recommend", {"k": 5}, {"Authorization": "Bearer wrong"}).status_code == 403
        assert post("/similar", {"item_id": "no-such-item"}).status_code == 404
        assert client.get("/no-such-page").status_code == 404
        events = [
            {"user_id": user, "item_id": answer.json()["items"][0]["item_id"], "event_type": kind}
            for user, answer in zip(known, lists, strict=True)
            for kind in ("impression", "click")
        ]
        assert post("/events", {"events": events[:20]}).status_code == 200


def _some_users(shop: WatchedShop) -> list[str]:
    """Twelve users of the log: both arms of a half-and-half canary have some."""
    import pyarrow.parquet as pq

    file = sorted((shop.world / "events").glob("*.parquet"))[0]
    found = pq.read_table(file, columns=["user_id"])["user_id"].drop_null().unique().to_pylist()
    return [str(user) for user in found[:12]]


def _spend_the_rate(shop: WatchedShop) -> None:
    """More requests than the key may send, until one is refused."""
    with shop.client() as client:
        for _ in range(2000):
            if client.get("/items", params={"q": "a b"}, headers=HEADERS).status_code == 429:
                return
    raise AssertionError("the rate limit refused nothing")
