"""From a log to live recommendations: the real steps, the real Airflow, the real service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from components.core.artifact import Artifact
from components.core.command import PIPELINE
from components.core.live import find_service, read_pointer
from components.core.step import latest
from components.core.store import Store
from components.deploy.probe import ServiceClient

if TYPE_CHECKING:
    from conftest import PipelineRun


def ask(run: PipelineRun) -> ServiceClient:
    record = find_service(run.settings)
    assert record is not None
    return ServiceClient(run.settings, record)


def marks(output: str) -> dict[str, str]:
    return {task: mark for mark, task in re.findall(r"^([✓=✗]) (\w+)", output, flags=re.MULTILINE)}


def test_every_step_ran_and_said_its_number(pipeline_run: PipelineRun) -> None:
    output = pipeline_run.first.stdout
    assert marks(output) == dict.fromkeys(PIPELINE, "✓")
    for task, number in (
        ("ingest", r"[\d,]+ rows = "),
        ("graph", r"edges"),
        ("train", r"recall"),
        ("evaluate", r"recall"),
    ):
        assert re.search(rf"^✓ {task} .*{number}", output, flags=re.MULTILINE), task
    assert pipeline_run.first.stderr == ""


def test_the_service_answers_with_the_bundle_that_the_run_made(pipeline_run: PipelineRun) -> None:
    store = Store(pipeline_run.settings.artifact_root)
    bundle = latest(store, "bundle")
    pointer = read_pointer(store)
    assert pointer is not None
    assert pointer.bundle.sha256 == bundle.sha256
    status, ready = ask(pipeline_run).get("/readyz")
    assert (status, ready["bundle"]) == (200, bundle.sha256)


def test_people_are_shown_by_what_they_bought_and_never_by_name(pipeline_run: PipelineRun) -> None:
    output = pipeline_run.first.stdout
    assert re.findall(r"^Customer (\d) of 3$", output, flags=re.MULTILINE) == ["1", "2", "3"]
    bought = re.findall(r"^  bought +(.+)$", output, flags=re.MULTILINE)
    assert len(bought) == 3
    titles = set(pq.read_table(pipeline_run.world / "catalog.parquet")["title"].to_pylist())
    assert bought[0].split("; ")[0] in titles
    assert "nothing yet" not in output


def test_the_places_that_are_named_exist(pipeline_run: PipelineRun) -> None:
    places = dict(
        re.findall(r"^  (data quality|evaluation|model card) +(\S+)$", pipeline_run.first.stdout, flags=re.MULTILINE)
    )
    assert set(places) == {"data quality", "evaluation", "model card"}
    for path in places.values():
        assert Path(path).stat().st_size > 500


def test_a_known_user_gets_items_that_they_do_not_have(pipeline_run: PipelineRun) -> None:
    store = Store(pipeline_run.settings.artifact_root)
    clean = latest(store, "clean")
    events = pq.read_table(Artifact.open(store, clean.uri).partition_paths()[-1], columns=["user_id"])
    user_id = next(user for user in events["user_id"].to_pylist() if user is not None)
    client = ask(pipeline_run)
    status, answer = client.post("/recommend", {"user_id": user_id, "k": 10})
    assert status == 200
    _, history = client.get(f"/users/{user_id}/history")
    recommended = [item["item_id"] for item in answer["items"]]
    assert len(recommended) == len(set(recommended)) == 10
    assert set(recommended).isdisjoint(item["item_id"] for item in history["items"])


def test_lineage_leads_from_the_deployment_back_to_the_log(pipeline_run: PipelineRun) -> None:
    store = Store(pipeline_run.settings.artifact_root)
    seen: dict[str, str] = {}

    def follow(uri: str) -> None:
        artifact = Artifact.open(store, uri)
        artifact.verify()
        seen.setdefault(artifact.manifest.kind, artifact.manifest.content_sha256)
        assert seen[artifact.manifest.kind] == artifact.manifest.content_sha256
        for source in artifact.manifest.inputs:
            follow(source.uri)

    follow(latest(store, "deployment").uri)
    assert set(seen) == {"events", "clean", "features", "graph", "bundle", "evaluation", "deployment"}


def test_the_commands_find_the_live_service(pipeline_run: PipelineRun) -> None:
    _, history = ask(pipeline_run).post("/recommend", {"k": 3})
    asked = pipeline_run.command("recommend", "nobody", "--k", "3", "--project", "shop")
    assert asked.returncode == 0, asked.stderr
    assert history["items"][0]["item_id"] in asked.stdout
    status = pipeline_run.command("status", "--project", "shop")
    assert "answers with bundle" in status.stdout
    assert "✓ deploy" in status.stdout


def test_a_second_run_reuses_all_that_is_finished_and_keeps_the_service(pipeline_run: PipelineRun) -> None:
    before = find_service(pipeline_run.settings)
    done = pipeline_run.command(*pipeline_run.arguments)
    assert done.returncode == 0, done.stderr
    assert marks(done.stdout) == {**dict.fromkeys(PIPELINE, "="), "deploy": "✓"}
    assert find_service(pipeline_run.settings) == before


def test_no_user_is_named_where_others_may_read(pipeline_run: PipelineRun) -> None:
    store = Store(pipeline_run.settings.artifact_root)
    clean = Artifact.open(store, latest(store, "clean").uri)
    users = {
        user for path in clean.partition_paths()[:3] for user in pq.read_table(path)["user_id"].to_pylist() if user
    }
    assert len(users) > 50
    exposed = [pipeline_run.first.stdout]
    exposed += [path.read_text(errors="replace") for path in (pipeline_run.home / "shop" / "logs").glob("*.log")]
    exposed += [path.read_text() for path in (pipeline_run.home / "shop" / "artifacts" / "runs").rglob("*.json")]
    exposed += [path.read_text() for path in (pipeline_run.home / "shop" / "artifacts").rglob("manifest.json")]
    words = set(re.findall(r"[\w-]+", " ".join(exposed)))
    assert users & words == set()
