"""The status page: what it tells, what it asks a person to look at, and that it asks nobody beyond loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import open_page, stays_here
from metric_servers import free_port, until
from watched_shop import WatchedShop

from components.core.artifact import ArtifactRef
from components.core.journal import NOT_PROMOTED, TaskEntry, TaskState, run_folder, write_entry
from components.core.live import POINTER, move_pointer, read_pointer
from components.core.pipeline_metrics import Sample
from components.core.settings import Settings, load_settings
from components.core.step import Step, StepContext, StepReport, execute
from components.core.store import Store
from components.core.usage import Stopwatch, record_usage
from serving.status import Status, read_status

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)
NOW = datetime(2024, 5, 2, 12, tzinfo=UTC)


@pytest.fixture
def shop_settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", metrics={"cpu_hour_price": 3600.0, "currency": "USD"})


@pytest.fixture
def store(shop_settings: Settings) -> Store:
    return Store(shop_settings.artifact_root)


def told(settings: Settings, **worker: Any) -> Status:
    """What the page would get from a worker that is well."""
    well: dict[str, Any] = {"is_ready": True, "reason": None, "workers": {"ab": 2}, "loaded_at": NOW}
    return read_status(settings, num_runs=8, **{**well, **worker})


def made(settings: Settings, kind: str, **report: Any) -> ArtifactRef:
    def run(context: StepContext) -> StepReport:
        context.output.path(f"{kind}.json").write_text('{"cutoff": "2024-04-03T00:00:00+00:00"}')
        return StepReport(**{"summary": f"{kind} is done", "rows": 7, **report})

    step = Step(name=kind, kind=kind, inputs=(), sections=(), rooms=(), run=run)
    return execute(step, settings=settings, inputs={}, run_id="made", as_of=AS_OF).ref


def note(store: Store, run_id: str, task: str, state: TaskState, *, minute: int = 0) -> None:
    moment = NOW + timedelta(minutes=minute)
    entry = TaskEntry(run_id=run_id, task=task, state=state, summary=f"{task} {state}", seconds=2.0, finished_at=moment)
    write_entry(store, run_folder(store, run_id=run_id, started_at=moment), entry)


def test_an_empty_project_is_told_as_it_is(shop_settings: Settings) -> None:
    status = told(shop_settings, is_ready=False, reason="There is no deploy pointer yet.", workers={})
    assert (status.bundle, status.rows, status.evaluation, status.drift, list(status.runs)) == (None,) * 4 + ([],)
    assert status.attention == ["No bundle is loaded. There is no deploy pointer yet."]


def test_a_well_shop_asks_for_nothing(shop_settings: Settings, store: Store) -> None:
    bundle = made(shop_settings, "bundle")
    move_pointer(store, bundle, previous=None, run_id="made")
    reasons = {"price is 0 or less": 4, **{f"reason {n}": 1 for n in range(9)}}
    rows = {"kept": 90, "quarantined": 10}
    made(shop_settings, "clean", statistics={"rows": rows, "quarantined_by_reason": reasons})
    made(shop_settings, "evaluation", statistics={"verdict": "promote", "failed_gates": [], "recall": 0.4})
    status = told(shop_settings)
    assert status.attention == []
    assert status.bundle is not None
    assert status.bundle.cutoff == datetime(2024, 4, 3, tzinfo=UTC)
    assert (status.bundle.sha256, status.bundle.items, status.bundle.as_of) == (bundle.sha256, 7, AS_OF)
    assert status.rows is not None
    assert (status.rows.kept, status.rows.quarantined, len(status.rows.reasons)) == (90, 10, 5)
    assert status.rows.reasons["price is 0 or less"] == 4


def test_a_run_is_told_with_its_outcome_its_cpu_and_its_price(shop_settings: Settings, store: Store) -> None:
    note(store, "run-1", "train", "done")
    note(store, "run-1", "deploy", "done", minute=1)
    note(store, "run-2", "train", "reused", minute=2)
    note(store, "run-2", NOT_PROMOTED, "done", minute=3)
    note(store, "run-3", "validate", "failed", minute=4)
    note(store, "run-4", "ingest", "done", minute=5)
    note(store, "look-1", "monitor", "done", minute=6)
    usage = Stopwatch("train").usage("done").model_copy(update={"cpu_seconds": 2.5})
    record_usage(store, "run-1", usage)
    runs = told(shop_settings).runs
    assert [(run.run_id, run.outcome) for run in runs] == [
        ("look-1", "done"),
        ("run-4", "unfinished"),
        ("run-3", "failed"),
        ("run-2", "not promoted"),
        ("run-1", "deployed"),
    ]
    assert runs[2].sentence == "validate: validate failed"
    assert (runs[4].seconds, runs[4].cpu_seconds, runs[4].cost) == (4.0, 2.5, 2.5)
    assert (runs[3].cpu_seconds, runs[3].cost) == (None, None)


def test_a_failed_run_wants_attention_until_the_next(shop_settings: Settings, store: Store) -> None:
    note(store, "run-1", "validate", "failed")
    note(store, "look-1", "monitor", "done", minute=1)
    assert told(shop_settings).attention == ["The last run failed: validate: validate failed"]
    note(store, "run-2", "deploy", "done", minute=2)
    assert told(shop_settings).attention == []


def test_of_the_hourly_looks_for_drift_the_newest_alone_is_shown(shop_settings: Settings, store: Store) -> None:
    note(store, "run-1", "deploy", "done")
    for hour in range(1, 6):
        note(store, f"look-{hour}", "monitor", "done", minute=60 * hour)
    assert [run.run_id for run in told(shop_settings).runs] == ["look-5", "run-1"]


def test_what_wants_attention_is_said_the_most_urgent_first(shop_settings: Settings, store: Store) -> None:
    move_pointer(store, made(shop_settings, "bundle"), previous=None, run_id="made")
    made(shop_settings, "evaluation", statistics={"verdict": "reject", "failed_gates": ["beats popularity"]})
    status = told(shop_settings, reason="The bundle cd was refused.", workers={"ab": 1, "cd": 1})
    assert status.attention == [
        "The bundle cd was refused.",
        "Workers answer with different bundles: one of them has not followed the pointer yet.",
        "The newest model was not promoted (reject): beats popularity.",
    ]


def test_a_record_that_cannot_be_read_is_a_sentence_and_the_rest_is_told(shop_settings: Settings, store: Store) -> None:
    note(store, "run-1", "deploy", "done")
    Path(store.path(POINTER)).parent.mkdir(parents=True)
    Path(store.path(POINTER)).write_text("no JSON")
    status = told(shop_settings)
    assert len(status.runs) == 1
    [sentence] = status.attention
    assert sentence.startswith("The deploy pointer cannot be read")


def test_drift_is_told_by_what_the_monitor_tells_prometheus(shop_settings: Settings) -> None:
    samples = [
        Sample("basketweave_drift_value", {"measure": "price_psi"}, 0.4),
        Sample("basketweave_drift_threshold", {"measure": "price_psi"}, 0.25),
        Sample("basketweave_drift_alarm", {"measure": "price_psi"}, 1),
        Sample("basketweave_drift_value", {"measure": "hours"}, 0.01),
    ]
    made(shop_settings, "monitoring", samples=samples)
    status = told(shop_settings)
    assert status.drift is not None
    assert [(one.name, one.value, one.limit, one.is_alarm) for one in status.drift.measures] == [
        ("price_psi", 0.4, 0.25, True),
        ("hours", 0.01, None, False),
    ]
    assert status.attention == ["Drift: price_psi."]


@pytest.fixture(scope="module")
def page(shop: WatchedShop) -> Iterator[str]:
    """The page of a service of the watched shop that asks for no key."""
    port = free_port()
    environment = {**shop.environment, "BASKETWEAVE_SERVE__API_KEYS": "[]", "BASKETWEAVE_SERVE__ADMIN": "false"}
    pointer = read_pointer(Store(shop.settings.artifact_root))
    assert pointer is not None
    # Of one bundle: a second service that follows the pointer is refused.
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", str(port), "--bundle", pointer.bundle.uri],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        import httpx

        with httpx.Client(base_url=url, trust_env=False) as client:

            def answers() -> bool:
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, what="the service is ready", seconds=120)
        yield f"{url}/status"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_the_page_shows_what_serves_and_asks_loopback_alone(page: str, tmp_path: Path) -> None:
    document, asked = open_page(page, tmp_path / "browser")
    assert all(stays_here(address) for address in asked), asked
    paths = {address.partition("127.0.0.1:")[2].partition("/")[2] for address in asked}
    assert {"status", "status.json", "pages/status.css", "pages/status.js"} <= paths
    assert "ready, 1 worker" in document
    assert "price is 0 or less" in document
    assert 'class="track"' in document
    assert "USD" in document or "EUR" in document


@pytest.mark.slow
def test_the_page_asks_for_a_key_where_the_service_has_keys(shop: WatchedShop, tmp_path: Path) -> None:
    document, asked = open_page(f"{shop.service.url}/status", tmp_path / "browser")
    assert all(stays_here(address) for address in asked), asked
    assert '<form id="key-form" class="key">' in document
    with shop.client() as client:
        assert client.get("/status.json").status_code == 401
