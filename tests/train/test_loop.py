"""The training loop on a ring of twelve items."""

from __future__ import annotations

import math

import pytest
import torch
from toy_windows import (
    NUM_ITEMS,
    NUM_USERS,
    attributes,
    flat,
    loop_config,
    recommender,
    ring,
    window,
)

from components.core.errors import StopError
from components.model.recommender import Recommender
from components.train.base_logits import base_logits
from components.train.loop import Epoch, rate_share, train
from components.train.repeatable import repeatable


def recall_at_1(model: Recommender) -> float:
    """Share of the ring's users whose best new item is the one that they take."""
    shop = ring(num_users=NUM_ITEMS)
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(shop.graph, attributes(), has_id_I=shop.has_id_I)
        scores = model.user_vectors(shop.histories, shop.statistics_BF, history_ID) @ target_ID.T
    scores[torch.arange(NUM_ITEMS), shop.histories.items] = -torch.inf
    return float((scores.argmax(dim=1) == shop.targets.items).float().mean())


def test_what_follows_what_is_learnt() -> None:
    model = recommender()
    assert recall_at_1(model) < 0.5
    epochs = train(model, [ring()], attributes(), config=loop_config(max_epochs=20), bases=flat(1), validate=None)
    assert recall_at_1(model) == 1
    assert len(epochs) == 20
    assert epochs[-1].loss < epochs[0].loss - 1
    assert not model.training


def test_a_seed_decides_every_weight() -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        model = recommender()
        config = loop_config(seed=seed, max_epochs=2, history_dropout=0.3)
        train(model, [ring(), ring()], attributes(), config=config, bases=flat(2), validate=None)
        return model.state_dict()

    first, second, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["id_tables.0"], other["id_tables.0"])


def test_the_best_epoch_is_kept_and_training_stops_without_gain() -> None:
    """Validation says 1, 3, 2, 2: the second epoch is the best, and the fourth the last."""
    verdicts = iter([1.0, 3.0, 2.0, 2.0, 9.0])
    seen: list[torch.Tensor] = []
    told: list[Epoch] = []

    def validate(model: Recommender) -> float:
        assert not model.training
        seen.append(model.id_tables[0].detach().clone())
        return next(verdicts)

    model = recommender()
    epochs = train(
        model,
        [ring()],
        attributes(),
        config=loop_config(),
        bases=flat(1),
        validate=validate,
        on_epoch=told.append,
    )
    assert [(epoch.number, epoch.validation) for epoch in epochs] == [(1, 1), (2, 3), (3, 2), (4, 2)]
    assert told == epochs
    assert torch.equal(model.id_tables[0], seen[1])
    assert not torch.equal(model.id_tables[0], seen[3])


def test_a_shorter_training_follows_the_plan_of_the_longer_one() -> None:
    """Stopped after two of eight epochs, the weights are those that the eight passed through."""
    passed: list[torch.Tensor] = []

    def validate(model: Recommender) -> float:
        passed.append(model.id_tables[0].detach().clone())
        return float(len(passed))

    train(recommender(), [ring()], attributes(), config=loop_config(), bases=flat(1), validate=validate)
    stopped = recommender()
    epochs = train(stopped, [ring()], attributes(), config=loop_config(), bases=flat(1), validate=None, stop_after=2)
    assert len(epochs) == 2
    assert torch.equal(stopped.id_tables[0], passed[1])


def test_a_loss_that_is_no_number_stops_with_a_sentence() -> None:
    bases = [torch.full((NUM_USERS, NUM_ITEMS), math.nan, dtype=torch.float16)]
    sentence = (
        r"^The loss became nan in epoch 1, step 1: the base logits of its users, the weighted counted terms, are "
    )
    with pytest.raises(StopError, match=sentence):
        train(recommender(), [ring()], attributes(), config=loop_config(), bases=bases, validate=None)


def test_what_the_base_says_already_is_not_learnt_again() -> None:
    """With base logits that know the answer there is next to nothing to learn."""
    knows = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.float16)
    knows[torch.arange(NUM_USERS), ring().targets.items] = 20
    (epoch,) = train(
        recommender(), [ring()], attributes(), config=loop_config(max_epochs=1), bases=[knows], validate=None
    )
    assert epoch.loss < 0.01


def test_hidden_id_vectors_teach_the_content() -> None:
    """With every id vector hidden the content alone moves."""
    model = recommender()
    before, content = (table.detach().clone() for table in (model.id_tables[0], model.content[0].weight))
    config = loop_config(id_dropout=1 - 1e-9, max_epochs=1)
    train(model, [ring()], attributes(), config=config, bases=flat(1), validate=None)
    assert torch.equal(model.id_tables[0], before)
    assert not torch.equal(model.content[0].weight, content)


def test_base_logits_are_the_weighted_terms_of_candidates_without_what_was_seen() -> None:
    users = [float(item) for item in range(NUM_ITEMS)]
    has_id = [item >= 3 for item in range(NUM_ITEMS)]
    shop = window([[4], [1, 5]], [[6], [7]], users=users, has_id=has_id)
    base = base_logits(shop, {"popularity": 2.0, "no such term": 9.0}, chunk=1)
    assert base.shape == (2, 9)
    assert base.dtype == torch.float16
    popular = [2 * (math.log1p(item) - math.log1p(11)) for item in range(3, NUM_ITEMS)]
    for user, seen in enumerate((1, 2)):  # items 4 and 5 stand second and third among the candidates; 1 is none
        expected = [-math.inf if place == seen else value for place, value in enumerate(popular)]
        assert base[user].tolist() == pytest.approx(expected, abs=2e-3)


def test_users_of_a_batch_get_their_own_base() -> None:
    """Masks that leave one item to each user: the loss is zero only where row and user fit."""
    shop = ring()
    base = torch.full((NUM_USERS, NUM_ITEMS), -math.inf, dtype=torch.float16)
    base[torch.arange(NUM_USERS), shop.targets.items] = 0
    (epoch,) = train(recommender(), [shop], attributes(), config=loop_config(max_epochs=1), bases=[base], validate=None)
    assert epoch.loss == pytest.approx(0, abs=0.02)  # bfloat16 keeps three digits of a logit


def test_one_row_of_base_logits_is_that_row_for_every_user() -> None:
    """As a column of the product or added to it, up to the narrow type's three digits."""
    base_1C = torch.linspace(-3, 1, NUM_ITEMS)[None, :]

    def loss(base: torch.Tensor) -> float:
        config = loop_config(max_epochs=1)
        (epoch,) = train(recommender(), [ring()], attributes(), config=config, bases=[base], validate=None)
        return epoch.loss

    assert loss(base_1C) == pytest.approx(loss(base_1C.expand(NUM_USERS, -1)), abs=0.02)
    assert abs(loss(base_1C) - loss(torch.zeros(1, NUM_ITEMS))) > 0.1


def test_rows_that_are_read_often_get_the_same_gradient_each_time() -> None:
    """Two threads that add to one place do so in one order. Without it this differs within a few tries."""
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(0, 500, (60_000,), generator=generator)
    factor = torch.rand(60_000, 1, generator=generator)
    given = torch.randn(500, 64, generator=generator)
    threads = torch.get_num_threads()

    def gradient() -> torch.Tensor:
        rows = given.clone().requires_grad_()
        (rows[place].square() * factor).sum().backward()
        assert rows.grad is not None
        return rows.grad

    torch.set_num_threads(2)
    try:
        with repeatable():
            gradients = [gradient() for _ in range(6)]
        assert all(torch.equal(gradients[0], other) for other in gradients)
    finally:
        torch.set_num_threads(threads)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_learning_rate_rises_and_falls_in_lines() -> None:
    shares = [rate_share(step, 100, 0.2) for step in (0, 9, 19, 50, 99)]
    assert shares == pytest.approx([0.05, 0.91 * 0.5, 0.81, 0.5, 0.02])
    assert [rate_share(step, 100, 0.0) for step in (0, 50)] == [1.0, 0.5]
