"""Rollouts and rollbacks of a served process with two workers, asked all the while: no request fails.

One service for the whole file; the tests run in order. `basketweave rollback` is run as a person runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.core.artifact import ArtifactRef
from components.core.live import ServiceRecord, find_service, move_pointer, read_pointer
from components.core.observations import read_observations
from components.core.presence import live_workers
from components.core.rollout import Rollout, read_barred, read_rollout, write_rollout
from components.core.settings import Settings, child_environment, load_settings
from components.core.step import Step, StepContext, StepReport, execute
from components.core.store import Store
from components.deploy.registry import CHAMPION, Registry
from components.deploy.service_process import stop_service
from components.deploy.step import STEP

pytestmark = pytest.mark.slow

MakeBundle = Callable[..., ArtifactRef]
USERS = [f"user-{n}" for n in range(60)]
CLIENTS = 3
SECONDS = 10.0  # what the project promises from the pointer's move to the last worker


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("rollback")
    serve = {"workers": 2, "pointer_poll_seconds": 0.2}
    return load_settings(home=home, project="shop", serve=serve, rollout={"observe_seconds": 0.2})


@pytest.fixture(scope="module")
def store(settings: Settings) -> Store:
    return Store(settings.artifact_root)


@pytest.fixture(scope="module")
def bundles(settings: Settings, make_bundle: MakeBundle) -> dict[str, ArtifactRef]:
    return {name: make_bundle(settings, name) for name in "abc"}


def deploy(settings: Settings, bundle: ArtifactRef) -> None:
    def run(context: StepContext) -> StepReport:
        context.output.path("verdict.json").write_text("{}")
        return StepReport(summary="promoted", rows=1, statistics={"verdict": "promote"})

    step = Step(name="evaluate", kind="evaluation", inputs=("bundle",), sections=(), rooms=(), run=run)
    evaluation = execute(step, settings=settings, inputs={"bundle": bundle}, run_id="run-1").ref
    execute(STEP, settings=settings, inputs={"bundle": bundle, "evaluation": evaluation}, run_id=bundle.sha256[:8])


@pytest.fixture(scope="module")
def service(settings: Settings, bundles: dict[str, ArtifactRef]) -> Iterator[ServiceRecord]:
    """Bundle 'a' served, then 'b' deployed over it."""
    try:
        deploy(settings, bundles["a"])
        deploy(settings, bundles["b"])
        record = find_service(settings)
        assert record is not None
        yield record
    finally:
        stop_service(settings)


@contextmanager
def load(service: ServiceRecord) -> Iterator[Counter[tuple[int, str]]]:
    """Callers who ask without a pause; what they were answered, as (status, bundle)."""
    seen: Counter[tuple[int, str]] = Counter()
    has_ended = threading.Event()
    lock = threading.Lock()

    def ask(caller: int) -> None:
        number = caller
        while not has_ended.is_set():
            # A new connection now and then, so that every worker gets some.
            with httpx.Client(base_url=service.url, timeout=20, trust_env=False) as client:
                for _ in range(10):
                    number += CLIENTS
                    user = USERS[number % len(USERS)]
                    answer = client.post("/recommend", json={"user_id": user, "k": 3})
                    with lock:
                        seen[answer.status_code, answer.json().get("bundle", "")] += 1

    threads = [threading.Thread(target=ask, args=(caller,)) for caller in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: sum(seen.values()) > 30)
        yield seen
        before = sum(seen.values())
        until(lambda: sum(seen.values()) > before + 30)
    finally:
        has_ended.set()
        for thread in threads:
            thread.join()


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def basketweave(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **child_environment(settings)}
    command = [sys.executable, "-m", "components.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def statuses(seen: Counter[tuple[int, str]]) -> set[int]:
    return {status for status, _ in seen}


def served_by(seen: Counter[tuple[int, str]]) -> set[str]:
    return {bundle for _, bundle in seen}


def canary(store: Store, champion: ArtifactRef, challenger: ArtifactRef, **changes: Any) -> Rollout:
    now = datetime.now(UTC)
    rollout = Rollout(
        id=f"r-{challenger.sha256[:6]}",
        challenger=challenger,
        champion=champion,
        stage="canary",
        share=0.5,
        salt="5a17",
        started_at=now,
        stage_started_at=now,
        run_id="run-1",
    ).model_copy(update=changes)
    write_rollout(store, rollout)
    return rollout


def taken_up(store: Store, rollout: str | None, bundle: ArtifactRef) -> bool:
    workers = live_workers(store, now=datetime.now(UTC))
    return len(workers) == 2 and {(one.rollout, one.bundle) for one in workers} == {(rollout, bundle.sha256)}


def test_a_rollback_under_load_fails_no_request_and_reaches_every_worker(
    settings: Settings, store: Store, service: ServiceRecord, bundles: dict[str, ArtifactRef]
) -> None:
    until(lambda: taken_up(store, None, bundles["b"]))
    with load(service) as seen:
        done = basketweave(settings, "rollback", "--reason", "it looks odd")
        after = Counter(seen)
    assert done.returncode == 0, done.stderr
    assert statuses(seen) == {200}
    assert f"Pointer moved back to bundle {bundles['a'].sha256[:12]}" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "workers answer with it" in line]
    assert line.startswith("All 2 workers")
    assert float(line.split(",")[1].split()[0]) < SECONDS
    # Since the command has said so, nobody was answered by the other bundle.
    assert served_by(seen - after) == {bundles["a"].sha256}
    assert read_barred(store)[bundles["b"].sha256].reason == "it looks odd"
    registry = Registry(settings)
    assert registry.holder(CHAMPION) == registry.find(bundles["a"].sha256)


def test_a_canary_under_load_and_its_end_by_hand_fail_no_request(
    settings: Settings, store: Store, service: ServiceRecord, bundles: dict[str, ArtifactRef]
) -> None:
    with load(service) as seen:
        rollout = canary(store, bundles["a"], bundles["c"])
        until(lambda: taken_up(store, rollout.id, bundles["a"]))
        until(lambda: bundles["c"].sha256 in served_by(seen))
        until(lambda: read_observations(store, rollout.id).step("canary-50").arm("challenger").requests > 20)
        done = basketweave(settings, "rollback")
        after = Counter(seen)
    assert done.returncode == 0, done.stderr
    assert statuses(seen) == {200}
    assert f"Pointer stays at bundle {bundles['a'].sha256[:12]}" in done.stdout
    assert served_by(seen - after) == {bundles["a"].sha256}
    assert read_rollout(store) is None
    assert read_observations(store, rollout.id).workers == 2


def test_a_barred_bundle_serves_again_when_a_person_names_it(
    settings: Settings, store: Store, service: ServiceRecord, bundles: dict[str, ArtifactRef]
) -> None:
    prefix = bundles["b"].sha256[:10]
    done = basketweave(settings, "rollback", "--to", prefix)
    assert done.returncode == 0, done.stderr
    assert taken_up(store, None, bundles["b"])
    assert bundles["b"].sha256 not in read_barred(store)
    assert bundles["a"].sha256 in read_barred(store)
    done = basketweave(settings, "unbar", bundles["a"].sha256[:10])
    assert done.returncode == 0, done.stderr
    assert bundles["a"].sha256 not in read_barred(store)


@pytest.mark.parametrize("damage", ["one bit", "truncated"])
def test_whatever_file_of_a_bundle_is_damaged_the_old_one_serves_on(
    store: Store, service: ServiceRecord, bundles: dict[str, ArtifactRef], damage: str
) -> None:
    """Each file in its turn: the pointer goes there, no worker follows, nobody notices."""
    pointer = read_pointer(store)
    assert pointer is not None
    good = pointer.bundle
    folder = Path(bundles["c"].uri)
    with load(service) as seen, httpx.Client(base_url=service.url, timeout=20, trust_env=False) as client:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = file.read_bytes()
            middle = len(data) // 2
            spoilt = (
                data[:-1] if damage == "truncated" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            )
            file.write_bytes(spoilt)
            try:
                move_pointer(store, bundles["c"], previous=good, run_id=file.name)
                until(lambda: client.get("/readyz").json()["reason"] is not None)
                time.sleep(0.5)  # the other worker has looked too
                assert client.get("/readyz").json()["workers"] == {good.sha256: 2}, file.name
                # Back before the file is whole again: a worker that tries once more would rightly take it up.
                move_pointer(store, good, previous=None, run_id="back")
                until(lambda: client.get("/readyz").json()["reason"] is None)
                time.sleep(0.3)  # for the worker that did not answer, which may be reading the file just now
            finally:
                file.write_bytes(data)
    assert statuses(seen) == {200}
    assert served_by(seen) == {good.sha256}


def test_a_store_that_is_away_during_a_swap_delays_it_and_no_more(
    settings: Settings, store: Store, service: ServiceRecord, bundles: dict[str, ArtifactRef]
) -> None:
    pointer = read_pointer(store)
    assert pointer is not None
    root, away = Path(settings.artifact_root), Path(settings.artifact_root).with_name("away")
    with load(service) as seen:
        bundle = Path(bundles["c"].uri)
        shutil.move(bundle, root / "moved")  # the pointer names what cannot be read yet
        move_pointer(store, bundles["c"], previous=pointer.bundle, run_id="swap")
        time.sleep(1)
        shutil.move(root, away)  # and now nothing can, or be written
        root.touch()
        time.sleep(1)
        root.unlink()
        shutil.move(away, root)
        shutil.move(root / "moved", bundle)
        until(lambda: taken_up(store, None, bundles["c"]))
    assert statuses(seen) == {200}
    assert served_by(seen) == {pointer.bundle.sha256, bundles["c"].sha256}
