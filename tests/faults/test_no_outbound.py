"""Nothing connects out: the pipeline, its steps, Airflow and the service under a trap, and every page in a browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import requests_of, same_page, stays_here
from small_shop import SmallShop

from components.core.artifact import Artifact
from components.core.command import PIPELINE
from components.core.live import find_service
from components.core.step import latest
from components.core.store import Store

if TYPE_CHECKING:
    from conftest import PipelineRun

TRAP = Path(__file__).parent / "trap"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def trapped(environment: dict[str, str], calls: Path) -> dict[str, str]:
    """The environment of a process, and of all that it starts, that notes its calls and lets none out."""
    return {**environment, "PYTHONPATH": str(TRAP), "CALLS_FILE": str(calls)}


def calls_in(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_trap_notes_a_call_and_lets_none_out(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    script = (
        "import socket, urllib.request\n"
        "for host in ('192.0.2.1', '127.0.0.1'):\n"
        "    try: socket.create_connection((host, 9), timeout=1)\n"
        "    except OSError as error: print(error)\n"
        "try: urllib.request.urlopen('http://telemetry.example/')\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=trapped(dict(os.environ), calls),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("a test lets nothing out") == 2
    assert [line.split()[0] for line in calls_in(calls)] == ["trap", "OUT", "here", "here", "OUT"]


@pytest.mark.slow
def test_no_step_calls_anybody(shop: SmallShop, undisturbed: dict[str, dict[str, Any]]) -> None:
    assert {step: undisturbed[step]["calls"] for step in PIPELINE} == {step: [] for step in PIPELINE}


@pytest.fixture(scope="module")
def trapped_run(pipeline_run: PipelineRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shop's service anew and a run of Airflow in process, both under the trap; the file of their calls."""
    calls = tmp_path_factory.mktemp("trap") / "calls"
    assert pipeline_run.command("stop").returncode == 0
    kept = dict(pipeline_run.environment)
    pipeline_run.environment.update(trapped(kept, calls))
    try:
        done = pipeline_run.command(*pipeline_run.arguments)  # deploy starts the service
        assert done.returncode == 0, done.stdout + done.stderr
        yield calls
    finally:
        pipeline_run.environment.clear()
        pipeline_run.environment.update(kept)


def service_url(run: PipelineRun) -> str:
    record = find_service(run.settings)
    assert record is not None
    return record.url


def known_user(run: PipelineRun) -> str:
    import pyarrow.parquet as pq

    store = Store(run.settings.artifact_root)
    days = Artifact.open(store, latest(store, "clean").uri).partition_paths()
    return next(user for user in pq.read_table(days[-1])["user_id"].to_pylist() if user)


@pytest.mark.slow
def test_a_run_and_the_service_call_loopback_alone(pipeline_run: PipelineRun, trapped_run: Path) -> None:
    url, user = service_url(pipeline_run), known_user(pipeline_run)
    for path, body in (
        ("/recommend", {"user_id": user, "k": 3}),
        ("/recommend", {"user_id": "nobody", "k": 3}),
        ("/", None),
        ("/metrics", None),
        ("/model", None),
        (f"/users/{user}/history", None),
    ):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data=data, headers={"content-type": "application/json"})
        with OPENER.open(request, timeout=60) as answer:
            assert answer.status == 200
    for command in (["status", "--project", "shop"], ["recommend", user, "--project", "shop"]):
        assert pipeline_run.command(*command).returncode == 0
    calls = calls_in(trapped_run)
    assert [line for line in calls if line.startswith("OUT") and f"'{socket.gethostname()}'" not in line] == []
    # The trap was there: deploy asked the service, which is a process under it.
    assert any(line.startswith("here socket.connect '127.0.0.1'") for line in calls)
    assert any(line.startswith("trap in ") and line.endswith("-m serving") for line in calls)


@pytest.mark.slow
def test_every_page_asks_loopback_alone(pipeline_run: PipelineRun, trapped_run: Path, tmp_path: Path) -> None:
    store = Store(pipeline_run.settings.artifact_root)
    url, user = service_url(pipeline_run), known_user(pipeline_run)
    reports = [
        str(path)
        for kind in ("clean", "graph", "bundle", "evaluation")
        for path in Path(latest(store, kind).uri).rglob("*.html")
    ]
    assert {Path(path).name for path in reports} >= {"quality.html", "report.html"}
    for number, page in enumerate([f"{url}/", f"{url}/#user={user}", *(f"file://{path}" for path in reports)]):
        asked = requests_of(page, tmp_path / str(number))
        assert any(same_page(one, page) for one in asked), (page, asked)
        outward = [one for one in asked if not stays_here(one)]
        assert outward == [], page
        if page.endswith(user):
            assert any(one.startswith(f"{url}/recommend") for one in asked)  # the page's script has run


@pytest.mark.slow
def test_a_page_that_asks_somebody_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<link rel="stylesheet" href="https://fonts.example/font.css"><img src="http://192.0.2.1/x.png">')
    asked = requests_of(f"file://{page}", tmp_path / "log")
    outward = {one for one in asked if not stays_here(one)}
    assert outward == {"https://fonts.example/font.css", "http://192.0.2.1/x.png"}
