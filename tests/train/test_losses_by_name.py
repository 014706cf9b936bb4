"""Every loss through the whole loop: each learns the ring, at the price of what it looks at."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_loop import recall_at_1
from toy_windows import NUM_ITEMS, NUM_USERS, attributes, entries, flat, loop_config, recommender, ring

from components.core.errors import SettingsError
from components.model.histories import Histories
from components.train import loop
from components.train.loop import chosen_loss, products_dtype, train
from components.train.windows import TrainingWindow


def rated_ring() -> TrainingWindow:
    """The item that follows is rated best, the one opposite of it worst."""
    given = entries([[(n + 1) % NUM_ITEMS, (n + 7) % NUM_ITEMS] for n in range(NUM_USERS)])
    values = torch.tensor([1.0, 0.0] * NUM_USERS)
    return dataclasses.replace(ring(), ratings=Histories(given.indptr, given.items, values, given.ages_days))


@pytest.mark.parametrize(
    "config",
    [
        {"loss": "sampled_softmax", "negatives": 6},
        {"loss": "sampled_softmax", "negatives": 6, "negative_sampling": "uniform"},
        {"loss": "bpr", "negatives": 3},
        {"contrast_weight": 0.1},
        {"contrast_weight": 0.1, "contrast_view": "edge_drop", "contrast_strength": 0.2},
        {"weight_decay": 0.01},
    ],
    ids=lambda config: " ".join(map(str, config.values())),
)
def test_what_follows_what_is_learnt(config: dict[str, float]) -> None:
    model = recommender()
    epochs = train(
        model, [ring()], attributes(), config=loop_config(max_epochs=30, **config), bases=flat(1), validate=None
    )
    assert recall_at_1(model) == 1
    assert epochs[-1].loss < epochs[0].loss / 1.5


@pytest.mark.parametrize("name", ["mse", "cross_entropy"])
def test_ratings_tell_the_liked_from_the_disliked(name: str) -> None:
    model, shop = recommender(), rated_ring()
    train(model, [shop], attributes(), config=loop_config(max_epochs=20, loss=name), bases=flat(1), validate=None)
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(shop.graph, attributes(), has_id_I=shop.has_id_I)
        cosine_BI = model.user_vectors(shop.histories, shop.statistics_BF, history_ID) @ target_ID.T
    liked, disliked = (shop.ratings.items.view(-1, 2)[:, side, None] for side in (0, 1))  # type: ignore[union-attr]
    assert cosine_BI.gather(1, liked).min() > 0.8
    assert cosine_BI.gather(1, disliked).max() < 0


def test_a_log_without_ratings_is_refused_where_they_are_learnt_from() -> None:
    with pytest.raises(SettingsError, match=r"^train\.loss is 'mse', which learns from explicit ratings, and a window"):
        chosen_loss("mse", [rated_ring(), ring()])


def test_auto_looks_at_all_items_while_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_loss("auto", [ring()]) == "full_softmax"
    monkeypatch.setattr(loop, "FULL_SOFTMAX_ITEMS", NUM_ITEMS - 1)
    assert chosen_loss("auto", [ring()]) == "sampled_softmax"
    assert chosen_loss("bpr", [ring()]) == "bpr"


def test_negatives_leave_seen_items_alone() -> None:
    """The base leaves out all but the taken item of each user: no negative is left, and nothing to learn."""
    base = torch.full((NUM_USERS, NUM_ITEMS), -torch.inf, dtype=torch.float16)
    base[torch.arange(NUM_USERS), ring().targets.items] = 0
    for name in ("sampled_softmax", "bpr"):
        model = recommender()
        before = model.id_tables[1].detach().clone()
        config = loop_config(max_epochs=1, loss=name)
        (epoch,) = train(model, [ring()], attributes(), config=config, bases=[base], validate=None)
        assert epoch.loss == pytest.approx(0, abs=1e-5), name
        torch.testing.assert_close(model.id_tables[1], before, atol=1e-5, rtol=0)


def test_precision_is_what_is_asked_for() -> None:
    cpu = torch.device("cpu")
    assert products_dtype("float32", cpu) == torch.float32
    assert products_dtype("float16", cpu) == torch.float16


def test_half_precision_with_scaled_gradients_follows_full_precision() -> None:
    """The loop's path for CUDA, on the CPU: losses are reported without the scale."""

    def losses(precision: str) -> list[float]:
        config = loop_config(max_epochs=4, precision=precision)
        epochs = train(recommender(), [ring()], attributes(), config=config, bases=flat(1), validate=None)
        return [epoch.loss for epoch in epochs]

    assert losses("float16") == pytest.approx(losses("float32"), abs=0.02)


@pytest.mark.parametrize("name", ["full_softmax", "sampled_softmax", "bpr"])
def test_a_seed_decides_every_weight_under_each_loss(name: str) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = recommender()
        config = loop_config(seed=seed, max_epochs=2, history_dropout=0.3, loss=name, contrast_weight=0.1)
        train(model, [ring(), ring()], attributes(), config=config, bases=flat(2), validate=None)
        return model.state_dict()

    first, second, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["id_tables.0"], other["id_tables.0"])
