"""Staged deployment and rollback, up to the service: pointer, bars, aliases, and the sentences that people read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from staged_shop import champion_and_challenger, staged
from text_bundles import bundle_and_evaluation, deploy
from typer.testing import CliRunner

from components import cli
from components.core.errors import ArtifactError, StopError
from components.core.live import read_pointer
from components.core.rollout import bar, read_barred, read_candidate, read_rollout, unbar
from components.core.settings import Settings
from components.core.store import Store
from components.deploy import staged as moves
from components.deploy.registry import CHALLENGER, CHAMPION, PREVIOUS, SHA256_TAG, Registry
from components.deploy.rollback import RolloutOverError, restore_registry, roll_back, wait_for_workers
from components.deploy.rollout_record import read_record
from components.orchestration.gate import why_not_promoted


def served(store: Store) -> str:
    pointer = read_pointer(store)
    assert pointer is not None
    return pointer.bundle.sha256


def holders(settings: Settings, *bundles: str) -> dict[str, int | None]:
    """Alias -> place of its bundle among these."""
    registry = Registry(settings)
    versions = [registry.find(sha256) for sha256 in bundles]
    held = {alias: registry.holder(alias) for alias in (CHAMPION, PREVIOUS, CHALLENGER)}
    return {alias: versions.index(version) if version else None for alias, version in held.items()}


def test_the_first_bundle_is_served_at_once_and_the_second_waits(settings: Settings, store: Store) -> None:
    champion, challenger = champion_and_challenger(staged(settings))
    assert served(store) == champion.content_sha256
    candidate = read_candidate(store)
    assert candidate is not None
    assert candidate.bundle == challenger.ref()
    names = (champion.content_sha256, challenger.content_sha256)
    assert holders(settings, *names) == {CHAMPION: 0, PREVIOUS: None, CHALLENGER: 1}


def test_a_rollback_goes_one_bundle_back_bars_the_other_and_turns_the_aliases(settings: Settings, store: Store) -> None:
    a, b, c = (bundle_and_evaluation(settings, text) for text in "abc")
    for one in (a, b, c):
        deploy(settings, *one)
    hashes = [one[0].content_sha256 for one in (a, b, c)]
    done = roll_back(settings, reason="clicks fell", run_id="by hand")
    restore_registry(settings, done)
    assert served(store) == hashes[1]
    assert {sha256: bar.reason for sha256, bar in read_barred(store).items()} == {hashes[2]: "clicks fell"}
    assert holders(settings, *hashes) == {CHAMPION: 1, PREVIOUS: 0, CHALLENGER: None}
    # Again: to the one before that, never forward to what was barred.
    restore_registry(settings, roll_back(settings, reason="this too", run_id="by hand"))
    assert served(store) == hashes[0]
    assert holders(settings, *hashes) == {CHAMPION: 0, PREVIOUS: None, CHALLENGER: None}
    with pytest.raises(StopError, match="Nothing served before"):
        roll_back(settings, reason="and this", run_id="by hand")
    assert wait_for_workers(settings, done, timeout_seconds=1)[0] == 0


def test_a_challenger_on_its_way_is_taken_back_and_the_champion_stays(settings: Settings, store: Store) -> None:
    settings = staged(settings)
    champion, challenger = champion_and_challenger(settings)
    rollout_id, _ = moves.begin(settings)
    assert rollout_id is not None
    moves.enter(settings, rollout_id, 1)
    done = roll_back(settings, reason="a hunch", run_id="by hand")
    assert (done.moved, done.ended_rollout) == (False, rollout_id)
    assert served(store) == champion.content_sha256
    assert read_rollout(store) is None
    assert set(read_barred(store)) == {challenger.content_sha256}
    record = read_record(store, rollout_id)
    assert (record.outcome, record.reason) == ("aborted", "a hunch")
    # The DAG's task finds out at its next look, and rolls nothing back a second time.
    with pytest.raises(RolloutOverError, match="is over: aborted, a hunch"):
        moves.look(settings, rollout_id)
    with pytest.raises(RolloutOverError):
        roll_back(settings, reason="late", run_id="dag", only=rollout_id)
    assert served(store) == champion.content_sha256


def test_what_was_rolled_back_is_promoted_by_nobody_until_a_person_lifts_the_bar(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (bundle_and_evaluation(settings, text) for text in "ab")
    deploy(settings, *first)
    deploy(settings, *second)
    roll_back(settings, reason="p99 doubled", run_id="by hand")
    sha256 = second[0].content_sha256
    monkeypatch.setattr("components.orchestration.gate.load_settings", lambda: settings)
    ref = second[1].ref().model_dump()
    refusal = why_not_promoted(ref, dag_run=SimpleNamespace(run_type="scheduled"))
    assert refusal is not None
    assert refusal.startswith(f"bundle {sha256[:12]} is barred since ")
    assert refusal.endswith(f"(p99 doubled); a person may lift that by 'basketweave unbar {sha256[:12]}'")
    with pytest.raises(StopError, match="is barred since"):
        deploy(settings, *second)
    assert unbar(store, sha256[:8])[0] == sha256
    assert why_not_promoted(ref, dag_run=SimpleNamespace(run_type="scheduled")) is None
    deploy(settings, *second)
    assert served(store) == sha256


def test_any_registered_bundle_can_be_named_by_the_beginning_of_its_hash(settings: Settings, store: Store) -> None:
    bundles = [bundle_and_evaluation(settings, text) for text in "abc"]
    for one in bundles:
        deploy(settings, *one)
    store.delete("deploy/pointer.json")
    deploy(settings, *bundles[2])  # the pointer has forgotten the others; the registry has not
    wanted = bundles[0][0].content_sha256
    roll_back(settings, to=wanted[:12], reason="a known good one", run_id="by hand")
    assert served(store) == wanted
    with pytest.raises(StopError, match="'ffff' names no registered bundle; there are: "):
        roll_back(settings, to="ffff", reason="x", run_id="by hand")


def test_a_damaged_bundle_is_no_place_to_go_back_to(settings: Settings, store: Store) -> None:
    first, second = (bundle_and_evaluation(settings, text) for text in "ab")
    deploy(settings, *first)
    deploy(settings, *second)
    (Path(first[0].uri) / "content.txt").write_text("spoilt")
    with pytest.raises(ArtifactError, match="hash differs"):
        roll_back(settings, reason="x", run_id="by hand")
    assert served(store) == second[0].content_sha256
    assert read_barred(store) == {}


def test_a_version_whose_tag_was_changed_gets_no_alias(settings: Settings) -> None:
    bundle, evaluation = bundle_and_evaluation(settings)
    registry = Registry(settings)
    version = registry.register(bundle, evaluation=evaluation)
    registry._client.set_model_version_tag(registry.name, version, SHA256_TAG, "0" * 64)
    with pytest.raises(ArtifactError, match="is not registered"):
        registry.crown(bundle.content_sha256)
    assert registry.holder(CHAMPION) is None


def test_a_deploy_at_once_ends_the_rollout_of_another(settings: Settings, store: Store) -> None:
    champion_and_challenger(staged(settings))
    rollout_id, _ = moves.begin(staged(settings))
    assert rollout_id is not None
    deploy(settings, *bundle_and_evaluation(settings, "c"))
    assert (read_rollout(store), read_candidate(store)) == (None, None)
    assert read_record(store, rollout_id).outcome == "ended"
    assert read_barred(store) == {}  # nothing was held against it


def test_a_newer_challenger_waits_until_the_first_is_through(settings: Settings, store: Store) -> None:
    settings = staged(settings)
    champion_and_challenger(settings)
    first_id, _ = moves.begin(settings)
    newer = bundle_and_evaluation(settings, "c")
    deploy(settings, *newer)
    assert moves.begin(settings)[0] == first_id
    roll_back(settings, reason="x", run_id="by hand")
    second_id, _ = moves.begin(settings)
    assert second_id is not None
    assert second_id.endswith(newer[0].content_sha256[:12])


def test_a_barred_candidate_never_begins(settings: Settings, store: Store) -> None:
    settings = staged(settings)
    _, challenger = champion_and_challenger(settings)
    bar(store, challenger.content_sha256, reason="known bad")
    rollout_id, sentence = moves.begin(settings)
    assert rollout_id is None
    assert "known bad" in sentence
    assert read_candidate(store) is None


def test_the_commands_say_in_one_sentence_what_cannot_be_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "project_settings", lambda project: settings)
    result = CliRunner().invoke(cli.app, ["rollback"])
    assert str(result.exception) == "Nothing is deployed, so there is nothing to go back to."
    result = CliRunner().invoke(cli.app, ["unbar", "ab"])
    assert str(result.exception) == "'ab' names no barred bundle; there are: none."
