"""The DAG `rollout` in this process, beside a stand-in for the service: stages, aborts, what a killed run left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from staged_shop import champion_and_challenger, counted, observe, staged
from tiny_steps import task_states

from components.core.live import read_pointer
from components.core.rollout import read_barred, read_candidate, read_rollout
from components.core.settings import Settings, load_settings
from components.core.store import Store
from components.deploy.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from components.deploy.rollout_record import ROLLOUTS, RolloutRecord, read_record

STAGES = ("shadow", "canary_10", "canary_50", "production", "watch")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("components.deploy.step.check_golden", lambda bundle, *, cache: None)
    monkeypatch.setenv("BASKETWEAVE_HOME", str(tmp_path / "home"))
    made = staged(load_settings(deploy={"start_service": False, "rollout": "staged"}))
    for name in ("deploy", "rollout"):
        monkeypatch.setenv(f"BASKETWEAVE_{name.upper()}", getattr(made, name).model_dump_json(exclude_none=True))
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__RETRIES", "0")
    return load_settings()


@pytest.fixture
def run_rollout(airflow_database: None) -> Callable[[], Any]:
    from airflow.dag_processing.dagbag import DagBag

    from components.orchestration.environment import dags_folder

    def run() -> Any:
        bag = DagBag(str(dags_folder()))
        assert bag.import_errors == {}
        return bag.dags["rollout"].test(logical_date=None)

    return run


@pytest.fixture
def service(settings: Settings) -> Iterator[dict[str, dict[str, dict[str, Any]]]]:
    """Counts in every stage as it is told; by default nothing is wrong with the challenger."""
    fine = {"challenger": counted(requests=500), "control": counted(requests=500), "champion": counted(requests=500)}
    answers = dict.fromkeys(("shadow", "canary-10", "canary-50", "watch"), fine)
    has_ended = threading.Event()

    def serve() -> None:
        store = Store(settings.artifact_root)
        while not has_ended.wait(0.02):
            if (rollout := read_rollout(store)) is not None and rollout.step in answers:
                observe(settings, rollout.step, answers[rollout.step])

    thread = threading.Thread(target=serve)
    thread.start()
    yield answers
    has_ended.set()
    thread.join()


def only_record(store: Store) -> RolloutRecord:
    (name,) = [name for name in store.list_dir(ROLLOUTS) if name.endswith(".json")]
    return read_record(store, name.removesuffix(".json"))


def served(store: Store) -> str:
    pointer = read_pointer(store)
    assert pointer is not None
    return pointer.bundle.sha256


def test_a_sound_challenger_goes_stage_by_stage_to_production(
    settings: Settings, service: Any, run_rollout: Callable[[], Any]
) -> None:
    champion, challenger = champion_and_challenger(settings)
    store = Store(settings.artifact_root)
    assert served(store) == champion.content_sha256
    dag_run = run_rollout()
    assert task_states(dag_run) == dict.fromkeys(("begin", *STAGES), "success")
    assert served(store) == challenger.content_sha256
    assert (read_rollout(store), read_candidate(store), read_barred(store)) == (None, None, {})
    record = only_record(store)
    assert record.outcome == "promoted"
    assert list(dict.fromkeys(look.step for look in record.looks)) == ["shadow", "canary-10", "canary-50", "watch"]
    assert {look.decision for look in record.looks} <= {"wait", "go on"}
    registry = Registry(settings)
    versions = [registry.find(one.content_sha256) for one in (challenger, champion)]
    assert [registry.holder(CHAMPION), registry.holder(PREVIOUS)] == versions
    assert registry.holder(CHALLENGER) is None
    page = Path(store.path(f"{ROLLOUTS}/{record.id}.html")).read_text()
    assert "promoted" in page
    assert challenger.content_sha256[:12] in page


@pytest.mark.slow
def test_a_challenger_that_people_click_on_less_is_rolled_back_in_canary_and_barred(
    settings: Settings, service: Any, run_rollout: Callable[[], Any]
) -> None:
    champion, challenger = champion_and_challenger(settings)
    service["canary-50"] = {
        "challenger": counted(requests=4000, clicks=200),
        "control": counted(requests=4000, clicks=500),
    }
    dag_run = run_rollout()
    states = task_states(dag_run)
    assert dag_run.state == "failed"
    assert [states[stage] for stage in STAGES] == ["success", "success", "failed", "upstream_failed", "upstream_failed"]
    store = Store(settings.artifact_root)
    assert served(store) == champion.content_sha256
    assert read_rollout(store) is None
    assert "click-through" in read_barred(store)[challenger.content_sha256].reason
    record = only_record(store)
    assert record.outcome == "aborted"
    assert record.looks[-1].decision == "abort"
    assert Registry(settings).holder(CHALLENGER) is None
    # The next run has nothing to do: what is barred is offered no more.
    assert task_states(run_rollout())["begin"] == "skipped"


@pytest.mark.slow
def test_what_breaks_in_the_watch_after_production_goes_back_by_itself(
    settings: Settings, service: Any, run_rollout: Callable[[], Any]
) -> None:
    champion, challenger = champion_and_challenger(settings)
    service["watch"] = {"challenger": counted(requests=1000, errors=100), "control": counted(requests=1000)}
    states = task_states(run_rollout())
    assert (states["production"], states["watch"]) == ("success", "failed")
    store = Store(settings.artifact_root)
    assert served(store) == champion.content_sha256
    assert "error share" in read_barred(store)[challenger.content_sha256].reason
    assert only_record(store).outcome == "rolled back"
    registry = Registry(settings)
    assert registry.holder(CHAMPION) == registry.find(champion.content_sha256)


@pytest.mark.slow
def test_a_run_that_was_killed_in_mid_rollout_goes_on_where_it_was(
    settings: Settings, service: Any, run_rollout: Callable[[], Any]
) -> None:
    """What it left is its stage in the store. The kill itself: tests/orchestration/test_rollout_killed.py."""
    from components.deploy import staged as moves

    _, challenger = champion_and_challenger(settings)
    rollout_id, _ = moves.begin(settings)
    assert rollout_id is not None
    moves.enter(settings, rollout_id, 2)
    store = Store(settings.artifact_root)
    before = read_rollout(store)
    assert task_states(run_rollout())["watch"] == "success"
    assert served(store) == challenger.content_sha256
    record = only_record(store)
    assert (record.id, record.outcome) == (rollout_id, "promoted")
    # Nobody's place was drawn anew, and no earlier stage began a second time.
    assert before is not None
    assert record.looks[0].step == "canary-50"


def test_without_a_challenger_the_run_is_skipped(settings: Settings, run_rollout: Callable[[], Any]) -> None:
    assert set(task_states(run_rollout()).values()) == {"skipped"}


@pytest.mark.parametrize("mode", ["in_process", "kubernetes"])
def test_an_approval_stands_before_production_and_the_offer_of_a_challenger_starts_it_all(
    airflow_database: None, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from components.orchestration.environment import dags_folder

    monkeypatch.setenv("BASKETWEAVE_DEPLOY__ROLLOUT", "staged")
    monkeypatch.setenv("BASKETWEAVE_ROLLOUT__APPROVAL", "true")
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__MODE", mode)
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__IMAGE", "basketweave:test")
    dag = DagBag(str(dags_folder())).dags["rollout"]
    assert dag.get_task("approve").upstream_task_ids == {"canary_50"}
    assert dag.get_task("production").upstream_task_ids == {"approve", "begin"}
    assert {dag.get_task(name).mode for name in ("shadow", "canary_1", "canary_10", "canary_50", "watch")} == {
        "reschedule"
    }
    assert "demo/deployment" in str(dag.schedule)
