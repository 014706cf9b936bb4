"""The step from artifacts to verdict, in a world whose right answer is known."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from planted_world import NUM_KEYS, NUM_USERS, SCRIPT, World, item_id, make_world, planted_events

from components.core.artifact import Artifact
from components.core.errors import ArtifactError
from components.core.step import Execution
from components.core.store import Store


def read(world: World, execution: Execution, name: str) -> str:
    return (world.folder(execution.manifest) / name).read_text()


def test_a_bundle_that_knows_what_follows_is_promoted(world: World, promoted: Execution) -> None:
    statistics = promoted.manifest.statistics
    verdict = json.loads(read(world, promoted, "verdict.json"))
    assert statistics["verdict"] == verdict["verdict"] == "promote"
    assert statistics["failed_gates"] == verdict["failed"] == verdict["reasons"] == []
    assert statistics["users"] == NUM_USERS
    passed = {gate["name"] for gate in verdict["gates"] if gate["passed"]}
    beside_champion = {gate["name"] for gate in verdict["gates"] if gate["outcome"] == "not applicable"}
    assert len(passed) + len(beside_champion) == len(verdict["gates"])
    assert {"beats RP3", "recall floor", "believable beside baselines"} <= passed
    assert {"recall kept", "no category lost", "request latency"} <= beside_champion
    assert all(check["passed"] for check in verdict["checks"])
    assert statistics["recall_lead_lower"] > 0.25


def test_recall_and_ndcg_are_those_of_a_recount(world: World, promoted: Execution) -> None:
    """What follows stands first in every list; of the other new items, some by chance."""
    metrics = json.loads(read(world, promoted, "metrics.json"))["settings"]["new_items"]["standings"]["model"]
    assert metrics["metrics"]["hit_rate"]["mean"] == 1.0
    assert metrics["metrics"]["reciprocal_rank"]["mean"] == 1.0
    assert metrics["metrics"]["recall"]["mean"] == promoted.manifest.statistics["recall"] > 1 / 3


def test_the_same_figures_come_from_any_number_of_chunks(
    world: World, promoted: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.evaluate.contest._CHUNK_SCORES", 7 * 400)
    again = world.evaluate(world.bundle(), example_users=4)
    assert json.loads(read(world, again, "metrics.json")) == json.loads(read(world, promoted, "metrics.json"))


def test_a_bundle_that_knows_nothing_is_not_promoted_and_the_step_ends_well(world: World) -> None:
    """By chance it leads in the mean: that is not shown, and not a loss either."""
    execution = world.evaluate(world.bundle(knows_what_follows=False))
    assert execution.manifest.statistics["verdict"] == "insufficient"
    assert "beats item-kNN" in execution.manifest.statistics["failed_gates"]
    assert "not promoted" in read(world, execution, "report.html")
    assert "verdict insufficient (beats" in execution.manifest.summary


def test_too_few_users_are_insufficient_and_never_a_pass(world: World) -> None:
    execution = world.evaluate(world.bundle(), min_users=NUM_USERS + 1)
    assert execution.manifest.statistics["verdict"] == "insufficient"
    assert execution.manifest.statistics["failed_gates"] == ["enough users"]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"features": None}, "trained on these features"),
        ({"clean": None}, "trained on this log"),
        ({"graph": None}, "known graph"),
    ],
)
def test_a_broken_lineage_is_rejected_before_anything_is_measured(
    world: World, changes: dict[str, Any], failed: str
) -> None:
    execution = world.evaluate(world.bundle(**changes))
    assert execution.manifest.statistics["verdict"] == "reject"
    assert execution.manifest.statistics["failed_gates"][0] == failed
    assert "recall" not in execution.manifest.statistics


def test_a_bundle_that_has_seen_the_holdout_is_rejected(world: World) -> None:
    """It answers better than any honest bundle; its cutoff gives it away."""
    execution = world.evaluate(world.bundle(cutoff=world.split.cutoff + timedelta(days=7)))
    assert execution.manifest.statistics["verdict"] == "reject"
    assert execution.manifest.statistics["failed_gates"][0] == "bundle cutoff"
    assert "recall" not in execution.manifest.statistics


def test_a_graph_that_is_gone_from_the_store_is_rejected(tmp_path: Path) -> None:
    world = make_world(tmp_path, planted_events())
    bundle = world.bundle()
    store = Store(world.settings.artifact_root)
    store.delete(store.relative(world.graph.uri))
    assert world.evaluate(bundle).manifest.statistics["failed_gates"][0] == "known graph"


def test_a_damaged_bundle_ends_the_step_and_leaves_no_verdict_that_could_be_reused(tmp_path: Path) -> None:
    """Mended, it is judged as if nothing had been."""
    world = make_world(tmp_path, planted_events())
    bundle = world.bundle()
    path = Path(bundle.uri) / "vectors.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"vectors\.safetensors is missing or damaged"):
        world.evaluate(bundle)
    assert not list((Path(world.settings.artifact_root) / "evaluation").glob("*/manifest.json"))
    path.write_bytes(whole)
    assert world.evaluate(bundle).manifest.statistics["verdict"] == "promote"


def test_equal_work_gives_equal_content(world: World, promoted: Execution) -> None:
    store = Store(world.settings.artifact_root)
    store.delete(store.relative(promoted.manifest.uri))
    again = world.evaluate(world.bundle())
    assert not again.is_reused
    assert again.ref.sha256 == promoted.ref.sha256
    Artifact.open(store, again.ref.uri).verify()


def test_a_log_without_purchases_is_judged_on_its_strongest_events(tmp_path_factory: pytest.TempPathFactory) -> None:
    events = [row | {"event_type": "view" if n % 9 == 0 else "cart"} for n, row in enumerate(planted_events())]
    world = make_world(tmp_path_factory.mktemp("carts"), events)
    execution = world.evaluate(world.bundle())
    assert json.loads(read(world, execution, "metrics.json"))["target_types"] == ["cart"]
    assert execution.manifest.statistics["verdict"] == "promote"


def test_the_report_loads_nothing_and_escapes_the_shops_texts(world: World, promoted: Execution) -> None:
    report = read(world, promoted, "report.html")
    assert SCRIPT not in report
    assert "<script" not in report
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in report
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", report))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"<(link|img|iframe|object)\b|@import|url\((?!#)", report)


def test_the_report_names_no_user_and_shows_what_they_had_and_took(world: World, promoted: Execution) -> None:
    report = read(world, promoted, "report.html")
    assert "user-0" not in report
    assert len(re.findall(r"<h3>User [0-9a-f]{8}</h3>", report)) == world.settings.evaluate.example_users
    assert report.count('class="hit"') >= 2 * world.settings.evaluate.example_users


def test_the_model_card_leads_from_the_log_to_the_bundle(world: World, promoted: Execution) -> None:
    card = read(world, promoted, "model_card.md")
    places = [card.index(ref.sha256) for ref in (world.clean, world.features, world.graph)]
    assert max(places[1:]) < card.index(world.bundle().sha256, max(places))
    assert places[0] < min(places[1:])
    assert "- verdict: **promote**" in card
    assert "planted \\| bundle" in card


def test_the_summary_says_it_in_one_line(promoted: Execution) -> None:
    assert re.fullmatch(
        r"recall@20 \.\d{4} vs best baseline [\w -]+ \.\d{4} \(\+\.\d{4} \[\.\d{4}, \.\d{4}\]\) new items, 180 users; "
        r"verdict promote",
        promoted.manifest.summary,
    )


def test_what_follows_is_what_the_example_lists_open_with(world: World, promoted: Execution) -> None:
    first = re.findall(r"<span>1</span><span><b>([^<]*)</b>", read(world, promoted, "report.html"))
    followers = {f"Thing {i}" for i in range(NUM_KEYS, 2 * NUM_KEYS)} | {
        item_id(i) for i in range(NUM_KEYS, 2 * NUM_KEYS)
    }
    assert len(first) == world.settings.evaluate.example_users
    assert set(first) <= followers | {"&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#39;Cheese&#39;"}
