"""Beside the bundle that serves: who is compared, what is found, and that a champion is never passed by silently."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from planted_world import NUM_ITEMS, World, item_id

from components.core.artifact import ArtifactRef
from components.core.errors import ArtifactError
from components.core.live import POINTER
from components.core.step import Execution
from components.core.store import Store
from components.evaluate.champion import ChampionEntrant
from components.evaluate.contest import NEW_ITEMS
from components.evaluate.latency import request_latency
from components.evaluate.vectors import misplaced_share
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.score import Scorer

# Latency is measured on this machine, with whatever else runs on it.
CALM: dict[str, Any] = {"max_latency_ratio": 50.0, "latency_requests": 20, "bootstrap_resamples": 500}
# Lists of what follows happen to be of fewer categories than lists of anything.
GAIN: dict[str, Any] = {**CALM, "min_diversity_ratio": 0.5}


def a_little_else(scorer: Scorer) -> None:
    scorer.weights.terms["popularity"] = 0.0101  # type: ignore[index]  # a dict


def verdict_of(world: World, execution: Execution) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads((world.folder(execution.manifest) / "verdict.json").read_text())
    return verdict


def gate(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [one for one in verdict["gates"] if one["name"] == name]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def equal(world: World) -> ArtifactRef:
    """Other bytes, the same lists."""
    return world.bundle(change=a_little_else, named="a little else")


def test_an_equal_bundle_is_promoted_and_shown_not_worse_in_all_and_in_slices(world: World, equal: ArtifactRef) -> None:
    with world.champion(world.bundle()):
        execution = world.evaluate(equal, **CALM)
    verdict, statistics = verdict_of(world, execution), execution.manifest.statistics
    assert statistics["verdict"] == "promote"
    assert verdict["champion"] == world.bundle().sha256
    assert statistics["champion_recall"] == pytest.approx(statistics["recall"], rel=0.05)
    for name in ("champion comparable", "recall kept", "NDCG kept", "coverage kept", "vectors at home", "bundle size"):
        assert gate(verdict, name)["outcome"] == "pass", name
    assert gate(verdict, "no items bought lost: torso")["outcome"] == "pass"
    assert re.search(r"; champion \.\d{4} \(\+\.0000 \[\.0000, \.0000\]\); verdict promote", execution.manifest.summary)


def test_a_slice_with_too_few_users_answers_insufficient_and_stops_nothing(world: World, equal: ArtifactRef) -> None:
    with world.champion(world.bundle()):
        verdict = verdict_of(world, world.evaluate(equal, **CALM))
    nobody = gate(verdict, "no users lost: no history")
    assert (nobody["outcome"], nobody["passed"], nobody["decides"], nobody["users"]) == (
        "insufficient",
        False,
        False,
        0,
    )
    assert verdict["verdict"] == "promote"


def test_a_worse_bundle_is_rejected_with_the_slices_that_lost_and_the_users_who_did(world: World) -> None:
    with world.champion(world.bundle()):
        execution = world.evaluate(world.bundle(knows_what_follows=False), **CALM)
    verdict = verdict_of(world, execution)
    assert verdict["verdict"] == "reject"
    assert {"recall kept", "NDCG kept"} <= set(verdict["failed"])
    assert any(name.startswith("no users lost: ") for name in verdict["failed"])
    kept = gate(verdict, "recall kept")
    assert kept["interval"]["upper"] < kept["threshold"] < 0
    report = (world.folder(execution.manifest) / "report.html").read_text()
    assert "Who lost most by it" in report
    assert re.search(r"the champion lists [1-9]\d* of them, the challenger 0", report)
    assert "user-0" not in report


def test_a_gain_too_good_to_be_true_waits_for_a_person_and_passes_when_one_has_looked(world: World) -> None:
    bundle = world.bundle()
    with world.champion(world.bundle(knows_what_follows=False)):
        held = world.evaluate(bundle, **GAIN)
        accepted = world.evaluate(bundle, **GAIN, accept_held=(bundle.sha256[:12],))
    assert held.manifest.statistics["verdict"] == "hold"
    assert held.manifest.statistics["failed_gates"] == ["believable beside champion"]
    assert f'evaluate.accept_held = ["{bundle.sha256[:12]}"]' in (
        world.folder(held.manifest) / "report.html"
    ).read_text().replace("&#34;", '"')
    assert accepted.manifest.statistics["verdict"] == "promote"
    assert verdict_of(world, accepted)["accepted_by_a_person"] is True


@pytest.mark.parametrize("hash_", ["", "0" * 64, "short"])
def test_accepting_another_bundle_accepts_nothing(world: World, hash_: str) -> None:
    accepted = world.bundle().sha256[:11] if hash_ == "short" else hash_
    with world.champion(world.bundle(knows_what_follows=False)):
        held = world.evaluate(world.bundle(), **GAIN, accept_held=(accepted,))
    assert held.manifest.statistics["verdict"] == "hold"


def test_a_champion_that_has_seen_the_holdout_is_no_opponent_and_holds(world: World, equal: ArtifactRef) -> None:
    seen = world.bundle(cutoff=world.split.cutoff + timedelta(days=3))
    with world.champion(seen):
        execution = world.evaluate(equal, **CALM)
    verdict = verdict_of(world, execution)
    assert (verdict["verdict"], verdict["failed"]) == ("hold", ["champion comparable"])
    assert "seen part of this hold-out" in verdict["reasons"][0]
    assert gate(verdict, "recall kept")["outcome"] == "not applicable"
    assert verdict["champion"] is None


@pytest.mark.parametrize("damage", ["bit", "truncated", "gone"])
def test_a_champion_that_is_damaged_or_gone_holds_and_once_mended_is_judged_beside(
    world: World, equal: ArtifactRef, damage: str
) -> None:
    champion = world.bundle(named=damage)
    folder = Path(champion.uri)
    path = folder / "filter.safetensors"
    whole = path.read_bytes()
    with world.champion(champion):
        if damage == "gone":
            folder.rename(folder.with_name("elsewhere"))
        else:
            path.write_bytes(whole[:-9] if damage == "truncated" else bytes([whole[0] ^ 1]) + whole[1:])
        held = world.evaluate(equal, **CALM)
        if damage == "gone":
            folder.with_name("elsewhere").rename(folder)
        else:
            path.write_bytes(whole)
        mended = world.evaluate(equal, **CALM)
    assert held.manifest.statistics["failed_gates"] == ["champion comparable"]
    assert held.manifest.statistics["verdict"] == "hold"
    assert "cannot be compared with" in verdict_of(world, held)["reasons"][0]
    assert mended.manifest.statistics["verdict"] == "promote"


def test_a_pointer_that_cannot_be_read_ends_the_step(world: World) -> None:
    store = Store(world.settings.artifact_root)
    path = Path(store.path(POINTER))
    path.parent.mkdir(exist_ok=True)
    path.write_text("{")
    try:
        with pytest.raises(ArtifactError, match="cannot be read"):
            world.evaluate(world.bundle(), **CALM)
    finally:
        path.unlink()


def test_the_bundle_that_serves_is_equal_to_itself_and_its_evaluation_stands(world: World) -> None:
    first = world.evaluate(world.bundle(), **CALM)
    with world.champion(world.bundle()):
        again = world.evaluate(world.bundle(), **CALM)
    assert again.is_reused
    assert again.ref == first.ref


def test_another_champion_means_another_judgement(world: World, equal: ArtifactRef) -> None:
    alone = world.evaluate(equal, **CALM)
    with world.champion(world.bundle()):
        beside = world.evaluate(equal, **CALM)
        again = world.evaluate(equal, **CALM)
    assert beside.ref.uri != alone.ref.uri
    assert again.is_reused


def test_equal_work_beside_a_champion_gives_equal_content_though_clocks_differ(
    world: World, equal: ArtifactRef
) -> None:
    store = Store(world.settings.artifact_root)
    with world.champion(world.bundle()):
        first = world.evaluate(equal, **CALM)
        timings = (world.folder(first.manifest) / "timings.json").read_text()
        store.delete(store.relative(first.manifest.uri))
        again = world.evaluate(equal, **CALM)
    assert again.ref.sha256 == first.ref.sha256
    assert json.loads(timings)["ratios_to_champion"]["latency"] > 0


def test_verdict_and_gates_are_metrics_without_users_or_paths(world: World, equal: ArtifactRef) -> None:
    with world.champion(world.bundle()):
        manifest = world.evaluate(equal, **CALM).manifest
    samples = {(one.name, *sorted(one.labels.values())): one.value for one in manifest.samples}
    assert samples["basketweave_evaluation_verdict", "promote"] == 1.0
    assert samples["basketweave_evaluation_verdict", "reject"] == 0.0
    assert samples["basketweave_evaluation_gate_failed", "recall kept"] == 0.0
    assert samples["basketweave_evaluation_gate_failed", "no category lost"] == 0.0
    assert samples["basketweave_evaluation_quality", "champion", "recall"] > 0.3
    assert not any("user-" in str(key) or "/" in str(key) for key in samples)


def test_the_champions_items_are_found_by_their_ids_and_those_it_lacks_are_never_listed(planted_bundle: Bundle) -> None:
    """The champion's table is turned round, and the challenger has an item more."""
    turned = dataclasses.replace(planted_bundle.items, item_ids=[item_id(i) for i in reversed(range(NUM_ITEMS))])
    champion = Bundle.__new__(Bundle)
    champion.__dict__.update(planted_bundle.__dict__ | {"items": turned})
    history = Histories.from_lists([[0]], [[1.0]], [[1.0]])
    statistics = torch.full((1, 2), torch.nan)
    entrant = ChampionEntrant(
        champion,
        item_ids=pa.array([*(item_id(i) for i in range(NUM_ITEMS)), "new"]),
        histories=history,
        statistics=statistics,
    )
    ((setting, scores),) = entrant.scores(np.array([0]))
    own = planted_bundle.scorer.score(history, statistics)
    assert setting == NEW_ITEMS
    assert scores[0, :NUM_ITEMS].tolist() == own[0].flip(0).tolist()
    assert scores[0, NUM_ITEMS].item() == -torch.inf


def test_a_request_that_costs_more_is_seen_to(planted_bundle: Bundle) -> None:
    class Slow(Scorer):
        def score(self, *given: Any, **options: Any) -> torch.Tensor:
            for _ in range(20):
                torch.randn(200, 200) @ torch.randn(200, 200)
            return super().score(*given, **options)

    slow = Bundle.__new__(Bundle)
    scorer = Slow.__new__(Slow)
    scorer.__dict__.update(planted_bundle.scorer.__dict__)
    slow.__dict__.update(planted_bundle.__dict__ | {"scorer": scorer})
    histories = Histories.from_lists([[0], [1, 2]], [[1.0], [1.0, 1.0]], [[1.0], [1.0, 2.0]])
    usual, dear = request_latency([planted_bundle, slow], histories=[histories, histories], requests=30, k=20, seed=1)
    assert dear > 1.5 * usual


def test_vectors_are_at_home_until_they_are_shuffled() -> None:
    """Items in groups of ten that point the same way, each the neighbour of the others of its group."""
    generator = np.random.default_rng(3)
    group = np.repeat(np.arange(60), 10)
    vectors = (np.eye(60, 80)[group] + generator.normal(0, 0.05, (600, 80))).astype(np.float32)
    item, neighbour = np.nonzero((group[:, None] == group) & ~np.eye(600, dtype=bool))
    neighbours = pa.table({"item": item, "neighbour": neighbour, "weight": np.ones(len(item))})
    assert misplaced_share(vectors, neighbours, seed=1) == 0.0
    rows = generator.choice(600, 30, replace=False)
    vectors[rows] = vectors[np.roll(rows, 1)]
    assert misplaced_share(vectors, neighbours, seed=1) == pytest.approx(0.04, abs=0.012)
    empty = neighbours.slice(0, 0)
    assert np.isnan(misplaced_share(vectors, empty, seed=1))
