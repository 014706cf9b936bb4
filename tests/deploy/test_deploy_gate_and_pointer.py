"""Deploy up to the service: what it refuses, what the pointer and the registry say afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from text_bundles import bundle_and_evaluation, committed, deploy

from components.core.errors import ArtifactError, StopError
from components.core.live import POINTER, read_pointer
from components.core.settings import Settings
from components.core.store import Store
from components.deploy.registry import CHAMPION, PREVIOUS, Registry
from components.deploy.step import pointed_at, refuse_unproved


@pytest.mark.parametrize("verdict", ["reject", "hold", "insufficient", "Promote", ""])
def test_only_a_promoted_bundle_is_deployed(settings: Settings, store: Store, verdict: str) -> None:
    with pytest.raises(StopError, match="is not promoted"):
        deploy(settings, *bundle_and_evaluation(settings, verdict=verdict))
    assert read_pointer(store) is None


def test_a_missing_verdict_is_a_refusal(settings: Settings) -> None:
    bundle = committed(settings, "bundle", "a")
    evaluation = committed(settings, "evaluation", "a", inputs={"bundle": bundle.ref()})
    with pytest.raises(StopError, match="the gate says 'nothing'"):
        refuse_unproved(bundle, evaluation)


def test_the_evaluation_must_be_of_this_very_bundle(settings: Settings) -> None:
    _, evaluation = bundle_and_evaluation(settings, "a")
    other = committed(settings, "bundle", "b")
    with pytest.raises(StopError, match="judged another bundle"):
        refuse_unproved(other, evaluation)


def test_deploying_twice_leaves_one_version_and_one_pointer(settings: Settings, store: Store) -> None:
    bundle, evaluation = bundle_and_evaluation(settings)
    first = deploy(settings, bundle, evaluation, "run-1")
    before = read_pointer(store)
    second = deploy(settings, bundle, evaluation, "run-2")
    assert first.statistics["version"] == second.statistics["version"] == "1"
    assert before is not None
    assert read_pointer(store) == before
    assert Registry(settings).holder(PREVIOUS) is None


def test_the_champion_before_becomes_previous(settings: Settings, store: Store) -> None:
    first, second = (bundle_and_evaluation(settings, text) for text in "ab")
    deploy(settings, *first)
    deploy(settings, *second)
    registry = Registry(settings)
    assert (registry.holder(CHAMPION), registry.holder(PREVIOUS)) == ("2", "1")
    assert registry.find(second[0].content_sha256) == "2"
    pointer = read_pointer(store)
    assert pointer is not None
    assert (pointer.bundle, pointer.previous) == (second[0].ref(), first[0].ref())


def test_a_registered_version_says_where_the_bundle_lies_and_who_made_it(settings: Settings) -> None:
    bundle, evaluation = bundle_and_evaluation(settings)
    deploy(settings, bundle, evaluation)
    registry = Registry(settings)
    version = registry._client.get_model_version(registry.name, "1")
    assert version.source == f"file://{bundle.uri}"
    assert version.tags["bundle_sha256"] == bundle.content_sha256
    assert version.tags["run_id"] == "run-1"


def test_a_version_names_the_training_that_was_tracked_for_its_run(settings: Settings) -> None:
    bundle, evaluation = bundle_and_evaluation(settings)
    registry = Registry(settings)
    experiment = registry._client.create_experiment(settings.tracking.experiment)
    runs = {}
    for name, project, status in (
        ("run-1", "shop", "FINISHED"),
        ("run-1", "shop", "FAILED"),
        ("run-1", "another", "FINISHED"),
        ("run-2", "shop", "FINISHED"),
    ):
        run = registry._client.create_run(experiment, run_name=name, tags={"project": project})
        registry._client.set_terminated(run.info.run_id, status)
        runs[name, project, status] = run.info.run_id
    deploy(settings, bundle, evaluation)
    assert registry._client.get_model_version(registry.name, "1").run_id == runs["run-1", "shop", "FINISHED"]


@pytest.mark.parametrize("had_one", [False, True])
def test_the_pointer_goes_back_when_what_follows_fails(settings: Settings, store: Store, had_one: bool) -> None:
    old, new = committed(settings, "bundle", "old"), committed(settings, "bundle", "new")
    if had_one:
        with pointed_at(store, old, run_id="run-1"):
            pass
    before = read_pointer(store)

    def fail_after_the_move() -> None:
        with pointed_at(store, new, run_id="run-2") as pointer:
            assert read_pointer(store) == pointer
            assert pointer.bundle == new.ref()
            raise RuntimeError("the service did not come up")

    with pytest.raises(RuntimeError, match="did not come up"):
        fail_after_the_move()
    assert read_pointer(store) == before


def test_a_torn_pointer_is_an_error_that_says_what_to_do(store: Store) -> None:
    store.write_json(POINTER, {"bundle": 3})
    with pytest.raises(ArtifactError, match="Deploy again"):
        read_pointer(store)


def test_a_manifest_is_the_registrys_only_source(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering copies nothing: the bundle's folder is unchanged, and MLflow keeps no artifact of its own."""
    bundle, evaluation = bundle_and_evaluation(settings)
    before = sorted(Path(bundle.uri).rglob("*"))
    monkeypatch.chdir(settings.home)
    deploy(settings, bundle, evaluation)
    assert sorted(Path(bundle.uri).rglob("*")) == before
    assert not list(settings.home.glob("mlruns*"))
