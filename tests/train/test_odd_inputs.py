"""Odd shops at the step's rim: one sentence where nothing can be learnt, a bundle where something can."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made_inputs import inputs_of_training
from random_shop import AS_OF, CATALOG, inputs, random_log, settings_in
from toy_windows import attributes, entries, flat, loop_config, recommender, ring

from components.core.errors import ArtifactError, ContractError, SettingsError, StopError
from components.core.step import execute
from components.graph import step as graph_step
from components.model import bundle as bundle_format
from components.model.attributes import ItemAttributes
from components.model.bundle import Bundle
from components.model.item_graph import to_torch
from components.train import world as train_world
from components.train.batches import Drawing
from components.train.loop import train
from components.train.refusals import cause_in_inputs, cause_of_no_number
from components.train.step import STEP


def made_from(home: Path, log: list[dict[str, Any]], catalog: list[dict[str, Any]], **train: Any) -> Bundle:
    settings = settings_in(home, max_epochs=1, **train)
    done = execute(STEP, settings=settings, inputs=inputs_of_training(settings, log, catalog, AS_OF), run_id="test")
    bundle = Bundle.load(Path(done.ref.uri))
    assert torch.isfinite(bundle.scorer.target_ID).all()
    return bundle


def test_items_without_neighbours_are_trained_beside_the_others(tmp_path: Path) -> None:
    """Five items stand alone in their baskets and in no category."""
    hermits = [
        {
            "user_id": f"u{n:02d}",
            "session_id": f"alone {n} {item}",
            "item_id": f"hermit {item}",
            "timestamp": AS_OF - timedelta(days=3 + 7 * (item % 3) + n % 2),
        }
        for item in range(5)
        for n in range(4)
    ]
    bundle = made_from(tmp_path, [*random_log(), *hermits], CATALOG)
    row = bundle.items.index["hermit 1"]
    assert bundle.scorer.target_ID[row].norm().item() == pytest.approx(1, abs=1e-3)


def test_one_category_for_all_items_is_none_and_training_goes_on(tmp_path: Path) -> None:
    bundle = made_from(tmp_path, random_log(), [{**row, "category": "a"} for row in CATALOG])
    assert "affinity_category" not in bundle.scorer.weights.terms


def test_one_user_is_refused(tmp_path: Path) -> None:
    """What is new to the only user was nobody's before, so it cannot compete."""
    log = [{**row, "user_id": "u00"} for row in random_log()]
    with pytest.raises(ContractError, match=r"^Nobody took an item that was new to them between 2024-03-01 and"):
        made_from(tmp_path, log, CATALOG)


def test_one_item_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody comes to it for the first time, some in each window; the graph step's own refusal is set aside."""
    monkeypatch.setattr(graph_step, "refuse_unfit", lambda counts, settings: None)
    log = [
        {"user_id": f"u{n}", "session_id": f"s{n}", "item_id": "tea", "timestamp": AS_OF - timedelta(days=1 + n)}
        for n in range(40)
    ]
    with pytest.raises(ContractError) as caught:
        made_from(tmp_path, log, [])
    assert str(caught.value) == (
        "Only one item had users enough to compete between 2024-03-01 and 2024-03-08, and one item needs no ranking. "
        "Give a longer log, or lower graph.min_item_users."
    )


def test_a_graph_without_an_edge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of a kind are to be joined, and no item is of any; the graph step's own refusal is set aside."""
    monkeypatch.setattr(graph_step, "refuse_unfit", lambda counts, settings: None)
    given = settings_in(tmp_path, max_epochs=1)
    settings = given.model_copy(update={"graph": given.graph.model_copy(update={"relations": ("same_category",)})})
    refs = inputs_of_training(settings, random_log(), [], AS_OF)
    with pytest.raises(ContractError, match=r"^No window's item graph has an edge between items with users, so there"):
        execute(STEP, settings=settings, inputs=refs, run_id="test")


def test_an_infinite_feature_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = train_world.read_statistics

    def broken(*given: Any, **options: Any) -> torch.Tensor:
        statistics = read(*given, **options)
        statistics[:3, list(train_world.STATISTICS).index("monetary")] = torch.inf
        return statistics

    monkeypatch.setattr(train_world, "read_statistics", broken)
    with pytest.raises(ContractError, match=r"the feature monetary is infinite for 3 users\. Check prices"):
        made_from(tmp_path, random_log(), CATALOG)


def test_features_that_are_unknown_of_everybody_are_left_out_of_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = train_world.read_statistics
    monkeypatch.setattr(
        train_world, "read_statistics", lambda *given, **options: read(*given, **options) * float("nan")
    )
    assert len(made_from(tmp_path, random_log(), CATALOG).items) == 25


def test_half_precision_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^train\.precision 'float16' needs a CUDA device\. Set it to 'auto'\.$"):
        made_from(tmp_path, random_log(), CATALOG, precision="float16")


def test_ratings_are_not_learnt_from_a_log_without_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^train\.loss is 'mse', which learns from explicit ratings, and a"):
        made_from(tmp_path, random_log(), CATALOG, loss="mse")


def test_a_bundle_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_in(tmp_path, max_epochs=1)
    done = execute(STEP, settings=settings, inputs=inputs(settings), run_id="test")
    version = bundle_format.BUNDLE_VERSION
    monkeypatch.setattr(bundle_format, "BUNDLE_VERSION", version + 1)
    sentence = rf"is a bundle of format {version}; this version reads {version + 1}\. Train it again\.$"
    with pytest.raises(ArtifactError, match=sentence):
        Bundle.load(Path(done.ref.uri))


def test_a_history_of_a_hundred_thousand_items_is_one_history_among_others() -> None:
    many = 100_000
    shop = ring(num_users=6)
    items = torch.arange(many)
    model = recommender_over(many)
    window = dataclasses.replace(
        shop,
        histories=entries([items.tolist(), *[[n] for n in range(5)]]),
        graph=to_torch({}),
        item_degree_I=torch.ones(many),
        has_id_I=torch.ones(many, dtype=torch.bool),
        candidates_C=items,
        targets=entries([[n + 6] for n in range(6)]),
        targets_may_be_seen=True,
    )
    nothing = ItemAttributes.from_columns({}, num_items=many, affinity_names=[])
    (epoch,) = train(model, [window], nothing, config=loop_config(max_epochs=1), bases=[None], validate=None)
    assert 5 < epoch.loss < 20  # log(100,000) is 11.5


def recommender_over(num_items: int) -> Any:
    config = dataclasses.replace(recommender().config, num_items=num_items, dim=2, relations=(), attribute_sizes=())
    model = type(recommender())(config)
    model.start(id_vectors=None, generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("statistics", "the feature spending is infinite for 2 users"),
        ("weights", "the weights in the histories of 1 users are not numbers"),
        ("edges", "edges of the relation met have weights that are not numbers"),
        ("degrees", "the items' numbers of users are not all numbers"),
    ],
)
def test_what_is_not_a_number_is_named(part: str, said: str) -> None:
    shop = ring()
    if part == "statistics":
        shop.statistics_BF[:2] = torch.inf
    elif part == "weights":
        shop.histories.weights[7] = torch.nan
    elif part == "edges":
        shop.graph["met"].values[3] = torch.nan  # type: ignore[union-attr]
    else:
        shop.item_degree_I[0] = torch.inf
    cause = cause_in_inputs(shop, ["spending"])
    assert cause is not None
    assert cause.startswith(said)
    drawing = Drawing(loss="full_softmax", history_dropout=0.0, id_dropout=0.0, num_negatives=0, draws_views=False)
    batch = drawing.batch(shop, None, torch.arange(4), sampler=None, generator=torch.Generator().manual_seed(0))
    assert cause_of_no_number(recommender(), batch, ["spending"]) == cause


def test_weights_that_grew_beyond_numbers_are_named() -> None:
    model = recommender()
    config = loop_config(learning_rate=1e39, max_epochs=3)
    with pytest.raises(StopError, match=r"step \d: the weights .* are not all numbers\. Lower train\.learning_rate"):
        train(model, [ring()], attributes(), config=config, bases=flat(1), validate=None)
