"""The real thing: a served process on a free port, asked over HTTP and looked at in a browser.

One service for the whole file, started by `deploy` as the pipeline starts it, with two workers and a filled online
store; the tests run in order and leave it serving.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from components.core.artifact import ArtifactRef
from components.core.errors import StopError
from components.core.live import ServiceRecord, find_service, move_pointer, read_pointer
from components.core.settings import Settings, load_settings
from components.core.step import Execution, Step, StepContext, StepReport, execute
from components.core.store import Store
from components.deploy.service_process import stop_service
from components.deploy.step import STEP

MakeBundle = Callable[..., ArtifactRef]
KNOWN = "7"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("served"), serve={"workers": 2, "pointer_poll_seconds": 0.2}, project="shop"
    )


@pytest.fixture(scope="module")
def store(settings: Settings) -> Store:
    return Store(settings.artifact_root)


def evaluated(settings: Settings, bundle: ArtifactRef) -> ArtifactRef:
    def run(context: StepContext) -> StepReport:
        context.output.path("verdict.json").write_text("{}")
        return StepReport(summary="promoted", rows=1, statistics={"verdict": "promote"})

    step = Step(name="evaluate", kind="evaluation", inputs=("bundle",), sections=(), rooms=(), run=run)
    return execute(step, settings=settings, inputs={"bundle": bundle}, run_id="run-1").ref


def deploy(settings: Settings, bundle: ArtifactRef, **deploy_settings: Any) -> Execution:
    used = settings.model_copy(update={"deploy": settings.deploy.model_copy(update=deploy_settings)})
    inputs = {"bundle": bundle, "evaluation": evaluated(settings, bundle)}
    return execute(STEP, settings=used, inputs=inputs, run_id=f"run-{time.time_ns()}")


@pytest.fixture(scope="module")
def first(settings: Settings, make_bundle: MakeBundle) -> ArtifactRef:
    return make_bundle(settings, "a")


@pytest.fixture(scope="module")
def deployed(settings: Settings, first: ArtifactRef, fill_online_store: Callable[..., None]) -> Iterator[Execution]:
    fill_online_store(settings, user_id=KNOWN, items=["dairy-0", "dairy-1"])
    try:
        yield deploy(settings, first)
    finally:
        stop_service(settings)


@pytest.fixture(scope="module")
def service(settings: Settings, deployed: Execution) -> ServiceRecord:
    record = find_service(settings)
    assert record is not None
    return record


@pytest.fixture
def client(service: ServiceRecord) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=10, trust_env=False) as client:
        yield client


def workers_of(client: httpx.Client) -> dict[str, int]:
    workers: dict[str, int] = client.get("/readyz").json()["workers"]
    return workers


def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_deploy_starts_the_service_and_every_worker_has_the_bundle(
    deployed: Execution, service: ServiceRecord, client: httpx.Client, first: ArtifactRef
) -> None:
    assert workers_of(client) == {first.sha256: 2}
    assert f"{service.url} answers with bundle {first.sha256[:12]}, basketweave v1" in deployed.manifest.summary
    deployment = json.loads((Path(deployed.ref.uri) / "deployment.json").read_text())
    assert deployment["url"] == service.url
    assert deployment["bundle"]["sha256"] == first.sha256
    assert (deployment["version"], deployment["alias"]) == ("1", "champion")


def test_a_known_household_is_recommended_from_the_online_store(client: httpx.Client) -> None:
    answer = client.post("/recommend", json={"user_id": KNOWN, "k": 3}).json()
    assert answer["source"] == "online_store"
    assert answer["degraded"] == []
    assert {item["category"] for item in answer["items"]} == {"DAIRY"}
    history = client.get(f"/users/{KNOWN}/history").json()
    assert [item["title"] for item in history["items"]] == ["Dairy 0", "Dairy 1"]


def test_the_whole_api_answers(client: httpx.Client) -> None:
    assert client.post("/similar", json={"item_id": "dairy-0", "k": 2}).status_code == 200
    assert client.get("/model").json()["items"] > 0
    assert client.get("/docs.json").json()["info"]["title"] == "Basketweave"
    assert client.post("/recommend", json={"usr": 1}).status_code == 422
    assert client.get("/nope").status_code == 404


def test_the_root_is_our_page_and_not_bentomls(client: httpx.Client) -> None:
    page = client.get("/").text
    assert "<title>Basketweave</title>" in page
    assert "googletagmanager" not in page
    assert "https://" not in page


def test_metrics_are_summed_over_the_workers(client: httpx.Client, service: ServiceRecord) -> None:
    def answered() -> float:
        start = 'basketweave_requests_total{endpoint="/recommend",status="200"}'
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    before = answered()
    for _ in range(20):  # a new connection each, so that both workers get some
        httpx.post(f"{service.url}/recommend", json={"user_id": KNOWN, "k": 1}, trust_env=False)
    assert answered() == before + 20
    assert f"/users/{KNOWN}" not in client.get("/metrics").text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_shows_a_script_title_as_text_and_runs_nothing(service: ServiceRecord, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", f"--user-data-dir={tmp_path}", "--virtual-time-budget=6000"),
        "--dump-dom",
        f"{service.url}/#user={KNOWN}",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Dairy 1" in dom  # the history
    assert "&lt;script&gt;document.title='taken'&lt;/script&gt; Dairy 2" in dom  # a recommendation
    assert "<script>document" not in dom
    assert "<title>Basketweave</title>" in dom


def test_a_second_deploy_swaps_every_worker_without_a_restart(
    settings: Settings,
    store: Store,
    service: ServiceRecord,
    client: httpx.Client,
    first: ArtifactRef,
    make_bundle: MakeBundle,
) -> None:
    other = make_bundle(settings, "b")
    execution = deploy(settings, other)
    assert workers_of(client) == {other.sha256: 2}
    assert find_service(settings) == service
    assert execution.manifest.statistics["version"] == "2"
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.bundle, pointer.previous) == (other, first)


def test_a_corrupt_bundle_is_not_deployed_and_the_pointer_goes_back(
    settings: Settings, store: Store, client: httpx.Client, make_bundle: MakeBundle
) -> None:
    before = read_pointer(store)
    assert before is not None
    bad = make_bundle(settings, "c", spoil_golden=True)
    with pytest.raises(StopError, match="did not take up the bundle in 3 s"):
        deploy(settings, bad, ready_timeout_seconds=3)
    assert read_pointer(store) == before
    assert workers_of(client) == {before.bundle.sha256: 2}
    assert client.post("/recommend", json={"k": 1}).json()["bundle"] == before.bundle.sha256


def test_a_pointer_moved_by_hand_is_followed_with_no_failed_request(
    settings: Settings, store: Store, service: ServiceRecord, client: httpx.Client, first: ArtifactRef
) -> None:
    before = read_pointer(store)
    assert before is not None
    move_pointer(store, first, previous=before.bundle, run_id="by hand")
    answers = []

    def swapped() -> bool:
        answers.append(client.post("/recommend", json={"user_id": KNOWN, "k": 1}).status_code)
        return workers_of(client) == {first.sha256: 2}

    until(swapped)
    assert set(answers) == {200}


@pytest.mark.slow
def test_a_killed_worker_comes_back(service: ServiceRecord, client: httpx.Client, first: ArtifactRef) -> None:
    workers = [child for child in psutil.Process(service.pid).children() if "worker" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    until(lambda: workers_of(client) == {first.sha256: 1}, seconds=5)
    until(lambda: workers_of(client) == {first.sha256: 2}, seconds=60)


def test_stopping_leaves_no_process(settings: Settings, service: ServiceRecord) -> None:
    family = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
    stopped = stop_service(settings)
    assert stopped == service
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert find_service(settings) is None
