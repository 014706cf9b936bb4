"""From a log to a bundle: what the trained model is worth, and that it is made the same twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from trained_shop import TrainedShop, train_shop

from components.core.command import load_step
from components.core.split import TimeSplit
from components.core.step import execute
from components.inputs.events import read_events
from components.inputs.users import read_histories, read_statistics
from components.measures.baselines import AllTimePopularity
from components.measures.ranking import list_metrics, top_lists
from components.model.bundle import Bundle
from components.train import step as train_step


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> TrainedShop:
    return train_shop(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def bundle(shop: TrainedShop) -> Bundle:
    return Bundle.load(Path(shop.refs["bundle"].uri))


def test_the_bundle_is_whole_and_gives_its_golden_answer(bundle: Bundle, shop: TrainedShop) -> None:
    split = TimeSplit.of(shop.artifact("clean").as_of, shop.settings.split)
    assert bundle.cutoff == split.cutoff
    bundle.golden.check(bundle.scorer)
    assert list(bundle.items.item_ids) == shop.artifact("graph").table("items.parquet")["item_id"].to_pylist()
    gates = bundle.facts["relation_gates"]
    assert set(gates) == set(shop.settings.graph.relations)
    # A relation without an edge (there are no rules) takes nothing from the others, and the summary names the others.
    assert {name for name, gate in gates.items() if not gate > 0} == {"always_with"}
    assert sum(gates.values()) == pytest.approx(1)
    named = shop.artifact("bundle").manifest.summary.partition("; relations ")[2]
    assert {one.split(" ")[0] for one in named.split(", ")} == set(gates) - {"always_with"}
    assert "rules.parquet" in shop.artifact("bundle").file_names


def test_on_the_holdout_it_beats_popularity_at_new_items(bundle: Bundle, shop: TrainedShop) -> None:
    split = TimeSplit.of(shop.artifact("clean").as_of, shop.settings.split)
    item_ids = pa.array(bundle.items.item_ids)
    log = read_events(shop.artifact("clean").partition_paths(), item_ids=item_ids, track=lambda paths: paths)
    known = log.known_at(split.cutoff, category=np.full(log.num_items, -1))
    taken = sp.csr_matrix(log.targets_in(split.holdout)[:, : log.num_items])
    new = sp.csr_matrix(taken - taken.multiply(known.seen))
    new.eliminate_zeros()
    users = np.flatnonzero(np.diff(new.indptr))
    features, user_ids = shop.artifact("features"), log.user_ids.take(pa.array(users))
    histories = read_histories(features, split.cutoff, user_ids=user_ids, item_ids=item_ids)
    statistics = read_statistics(features, split.cutoff, user_ids=user_ids, names=bundle.statistics_names)
    popularity = AllTimePopularity()
    popularity.fit(known)

    seen = torch.from_numpy(known.seen[users].toarray() > 0)
    recall = {}
    for name, scores in {
        "model": bundle.scorer.score(histories, statistics),
        "popularity": torch.as_tensor(popularity.score(users), dtype=torch.float32),
    }.items():
        lists = top_lists(scores.expand(len(users), -1).masked_fill(seen, -torch.inf), k=10)
        recall[name] = list_metrics(lists, new[users]).means()["recall"]
    assert len(users) > 150
    assert recall["model"] > 1.2 * recall["popularity"], recall


def test_the_convolution_adds_to_the_counted_terms(bundle: Bundle) -> None:
    validation = bundle.facts["validation"]
    assert validation["recall"] > validation["recall_without_similarity"]
    assert bundle.scorer.weights.terms["similarity"] > 0


def test_a_seed_decides_every_byte_of_a_bundle(shop: TrainedShop, bundle: Bundle) -> None:
    step = dataclasses.replace(load_step("train"), reusable=False)
    inputs = {kind: shop.refs[kind] for kind in step.inputs}
    again = execute(step, settings=shop.settings, inputs=inputs, run_id="again")
    assert again.ref.uri != shop.refs["bundle"].uri
    assert again.ref.sha256 == bundle.sha256


def test_cold_items_have_vectors_of_what_they_are(bundle: Bundle, shop: TrainedShop) -> None:
    cold = np.flatnonzero(bundle.items.popularity < shop.settings.graph.min_item_users)
    assert len(cold) > 10
    target_ID = bundle.scorer.target_ID[cold]
    assert (target_ID.norm(dim=1) > 0.99).all()
    assert len(torch.unique(target_ID.round(decimals=4), dim=0)) > len(cold) / 2


def test_what_was_trained_is_tracked_without_naming_anybody(shop: TrainedShop) -> None:
    client = mlflow.MlflowClient(shop.settings.tracking_uri)
    experiment = client.get_experiment_by_name("basketweave")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], filter_string="tags.mlflow.runName = 'shop-train'")
    assert run.info.status == "FINISHED"
    assert run.data.params["train.seed"] == str(shop.settings.train.seed)
    assert run.data.tags["input.graph"] == shop.refs["graph"].sha256
    losses = [point.value for point in client.get_metric_history(run.info.run_id, "loss")]
    training = json.loads(shop.artifact("bundle").path("training.json").read_text())
    assert losses == pytest.approx([epoch["loss"] for epoch in training["history"]])
    assert max(training["history"], key=lambda epoch: epoch["validation"])["epoch"] == training["epochs"]
    users = set(shop.artifact("features").table("user_history.parquet")["user_id"].to_pylist())
    said = " ".join([*run.data.tags.values(), *run.data.params.values()])
    assert [user for user in users if user in said] == []


def test_a_failed_training_is_marked_as_failed(shop: TrainedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no power")

    monkeypatch.setattr(train_step, "train_recommender", fails)
    step = dataclasses.replace(load_step("train"), reusable=False)
    inputs = {kind: shop.refs[kind] for kind in step.inputs}
    with pytest.raises(RuntimeError, match="no power"):
        execute(step, settings=shop.settings, inputs=inputs, run_id="fails")
    client = mlflow.MlflowClient(shop.settings.tracking_uri)
    experiment = client.get_experiment_by_name("basketweave")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], filter_string="tags.mlflow.runName = 'fails'")
    assert run.info.status == "FAILED"
