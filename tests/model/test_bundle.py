"""The bundle: what is written is what serves, and damage is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from six_items import (
    AS_OF,
    CATEGORIES,
    NUM_ITEMS,
    SCALING,
    WEIGHTS,
    attributes,
    committed_bundle,
    item_graph,
    recommender,
    scorer,
    three_users,
)

from components.core.artifact import ArtifactWriter
from components.core.errors import ArtifactError
from components.model.bundle import BUNDLE_VERSION, Bundle, verified_manifest, write_encoder
from components.model.encoders import ENCODERS
from components.model.golden import Golden
from components.model.recommender import Recommender, RecommenderConfig
from components.model.score import ScoreWeights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return committed_bundle(tmp_path_factory.mktemp("bundle"), scorer())


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return Bundle.load(folder)


@pytest.mark.parametrize("include_seen", [False, True])
def test_a_loaded_bundle_scores_as_what_was_written(bundle: Bundle, include_seen: bool) -> None:
    written = scorer().score(*three_users(), include_seen=include_seen)
    assert torch.equal(bundle.scorer.score(*three_users(), include_seen=include_seen), written)


def test_a_bundle_says_what_it_is(bundle: Bundle, folder: Path) -> None:
    assert (bundle.cutoff, bundle.as_of, bundle.format_version) == (AS_OF, AS_OF, BUNDLE_VERSION)
    assert bundle.scorer.weights == WEIGHTS
    assert bundle.scorer.scaling == SCALING
    assert bundle.statistics_names == ("recency_days", "frequency")
    assert bundle.facts["recipe"] == {"encoder": "light"}
    assert bundle.sha256 == verified_manifest(folder).content_sha256


def test_its_items_have_names_prices_and_users(bundle: Bundle) -> None:
    items = bundle.items
    assert len(items) == NUM_ITEMS
    assert items.index["item-3"] == 3
    assert [items.display(n) for n in (0, 5)] == ["Milk", "item-5"]
    assert items.popularity.tolist() == [30, 20, 10, 5, 4, 0]
    assert items.prices[0] == 1
    assert items.prices[2] != items.prices[2]  # nan: unknown
    assert list(items.categories) == ["dairy", "dairy", "bakery", "bakery", None, "home"]
    assert list(items.brands) == [None] * NUM_ITEMS


def test_a_user_is_the_same_in_training_and_in_the_bundle(bundle: Bundle) -> None:
    model = recommender()
    histories, statistics_BF = three_users()
    history_ID, target_ID = model.item_vectors(
        item_graph(), attributes(), has_id_I=torch.tensor([True] * 4 + [False] * 2)
    )
    in_training = model.user_vectors(histories, SCALING.apply(statistics_BF), history_ID)
    torch.testing.assert_close(bundle.scorer.history_ID, history_ID)
    torch.testing.assert_close(bundle.scorer.target_ID, target_ID)
    torch.testing.assert_close(bundle.scorer.user_vectors(histories, statistics_BF), in_training)


def test_attention_over_histories_serves_as_it_was_trained(tmp_path: Path) -> None:
    written = scorer(model=recommender(user_pooling="attention"))
    loaded = Bundle.load(committed_bundle(tmp_path, written))
    assert loaded.facts["user_pooling"] == "attention"
    scores = loaded.scorer.score(*three_users())
    assert torch.equal(scores, written.score(*three_users()))
    assert not torch.allclose(scores, scorer().score(*three_users()))
    loaded.golden.check(loaded.scorer)


def test_a_bundle_from_before_there_was_a_choice_pools_by_decay(tmp_path: Path) -> None:
    def without_the_choice(output: ArtifactWriter) -> None:
        path = output.path("bundle.json")
        facts = json.loads(path.read_text())
        del facts["user_pooling"]
        path.write_text(json.dumps(facts))

    loaded = Bundle.load(committed_bundle(tmp_path, scorer(), after=without_the_choice))
    assert torch.equal(loaded.scorer.score(*three_users()), scorer().score(*three_users()))


def test_no_user_is_in_a_bundle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "attributes.safetensors",
        "bundle.json",
        "filter.safetensors",
        "items.parquet",
        "manifest.json",
        "user_vector.safetensors",
        "vectors.safetensors",
    ]


def test_equal_bundles_have_equal_hashes(bundle: Bundle, tmp_path: Path) -> None:
    again = committed_bundle(tmp_path, scorer())
    assert verified_manifest(again).content_sha256 == bundle.sha256
    other = committed_bundle(tmp_path / "other", scorer(weights=ScoreWeights(terms={"popularity": 1.0})))
    assert verified_manifest(other).content_sha256 != bundle.sha256


def test_the_golden_request_is_answered_as_it_was(bundle: Bundle) -> None:
    bundle.golden.check(bundle.scorer)
    assert bundle.golden.items == (0, 1, 2, 3, 4)  # the best known
    assert bundle.golden.answer_items == (5,)


@pytest.mark.parametrize("wrong", ["weights", "vectors", "user vector"])
def test_a_scorer_that_answers_otherwise_is_refused(bundle: Bundle, wrong: str) -> None:
    changed = bundle.scorer
    if wrong == "weights":
        changed = changed.with_weights(ScoreWeights(terms=dict(WEIGHTS.terms) | {"popularity": 0.0, "filter": 9.0}))
    elif wrong == "vectors":
        changed.target_ID = -changed.target_ID
    else:
        with torch.no_grad():
            changed.user_vector.readout[2].bias += 5  # type: ignore[operator]  # an nn.Linear's
    with pytest.raises(ArtifactError, match="does not give its golden answer"):
        bundle.golden.check(changed)


def test_scores_that_are_no_numbers_are_no_golden_answer(bundle: Bundle) -> None:
    bundle.scorer.target_ID = bundle.scorer.target_ID * torch.nan
    with pytest.raises(ArtifactError, match="does not give its golden answer"):
        bundle.golden.check(bundle.scorer)


def test_a_golden_answer_survives_its_file(bundle: Bundle) -> None:
    assert Golden.from_json(json.loads(json.dumps(bundle.golden.to_json()))) == bundle.golden


@pytest.mark.parametrize(
    "name", ["vectors.safetensors", "filter.safetensors", "user_vector.safetensors", "items.parquet", "bundle.json"]
)
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = committed_bundle(tmp_path, scorer()) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data) if damage == "flipped" else path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing or damaged"):
        Bundle.load(path.parent)


def test_a_manifest_that_was_changed_with_its_files_is_refused(tmp_path: Path) -> None:
    folder = committed_bundle(tmp_path, scorer())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != "filter.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="was changed: its content hash does not fit"):
        Bundle.load(folder)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no bundle"):
        Bundle.load(tmp_path)


def test_another_format_asks_for_another_training(tmp_path: Path) -> None:
    def from_the_future(output: ArtifactWriter) -> None:
        path = output.path("bundle.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))

    folder = committed_bundle(tmp_path, scorer(), after=from_the_future)
    with pytest.raises(ArtifactError, match=r"is a bundle of format 2; this version reads 1\. Train it again"):
        Bundle.load(folder)


@pytest.mark.parametrize("encoder", sorted(set(ENCODERS) - {"user_item"}))
def test_the_network_can_be_built_again_from_what_goes_along(tmp_path: Path, encoder: str) -> None:
    """Nobody has an id vector here: content, encoder and graph make the vectors alone."""
    model = recommender(encoder=encoder, layer_pooling="learnt", normalisation="layer", attention_heads=2)
    write_encoder(ArtifactWriter(tmp_path), model=model, attributes=attributes(), graph=item_graph())

    config = RecommenderConfig.from_json(json.loads((tmp_path / "encoder.json").read_text())["network"])
    assert config == model.config
    again = Recommender(config).eval()
    again.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=False)
    nobody = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    expected = model.item_vectors(item_graph(), attributes(), has_id_I=nobody)
    torch.testing.assert_close(again.item_vectors(item_graph(), attributes(), has_id_I=nobody), expected)


def test_what_made_the_item_vectors_goes_along(tmp_path: Path) -> None:
    output = ArtifactWriter(tmp_path)
    model = recommender()

    write_encoder(output, model=model, attributes=attributes(), graph=item_graph())

    state = load_file(tmp_path / "encoder.safetensors")
    assert {name.split(".")[0] for name in state} == {"content", "encoder"}
    assert torch.equal(state["content.0.weight"], model.state_dict()["content.0.weight"])
    described = json.loads((tmp_path / "encoder.json").read_text())
    known = sorted({one for one in CATEGORIES if one is not None})
    assert described["vocabularies"]["category"] == known
    assert described["network"]["dim"] == model.config.dim
    shown = pq.read_table(tmp_path / "neighbours.parquet")
    assert set(shown["relation"].to_pylist()) == set(item_graph())
    assert min(shown["weight"].to_pylist()) > 0
