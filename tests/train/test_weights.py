"""Weights of the score's terms: a log-linear model whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from toy_windows import NUM_ITEMS, window

from components.model.score import SIMILARITY
from components.train import weights as weights_module
from components.train.fit import weigh_all, weigh_counted
from components.train.weights import fit_weights

NUM_USERS, NUM_CANDIDATES = 600, 40
TRUTH = {"taste": 1.5, "popularity": 0.7, "noise": 0.0, "aversion": -0.8}


class LogLinear:
    """Users who take what the model with weights TRUTH makes likely; some items they cannot take."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (NUM_USERS, NUM_CANDIDATES)
        self.terms = {name: torch.randn(shape, generator=generator) for name in TRUTH}
        self.terms["popularity"] = self.terms["popularity"][:1]
        self.masked = torch.rand(shape, generator=generator) < 0.2
        logits = torch.stack([TRUTH[name] * term.expand(shape) for name, term in self.terms.items()]).sum(dim=0)
        p = torch.softmax(logits.masked_fill(self.masked, -torch.inf), dim=1)
        taken = torch.multinomial(p, 8, replacement=True, generator=generator)
        self.taken = torch.zeros(shape).scatter_add_(1, taken, torch.full(taken.shape, 1 / 8))

    def source(self, rows: Tensor) -> Mapping[str, Tensor]:
        return {name: term if len(term) == 1 else term[rows] for name, term in self.terms.items()}

    def fit(self, **options: float) -> dict[str, float]:
        return fit_weights(
            self.source,
            names=tuple(TRUTH),
            mask=lambda rows: self.masked[rows],
            targets=lambda rows: self.taken[rows],
            users=torch.arange(NUM_USERS),
            **options,  # type: ignore[arg-type]  # ridge, passes or tolerance
        )


@pytest.fixture(scope="module")
def shop() -> LogLinear:
    return LogLinear()


def test_known_weights_are_found_again(shop: LogLinear) -> None:
    assert shop.fit() == pytest.approx(TRUTH, abs=0.1)


def test_chunks_do_not_change_the_answer(shop: LogLinear, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shop.fit()
    monkeypatch.setattr(weights_module, "CHUNK_USERS", 7)
    assert shop.fit() == pytest.approx(whole, abs=1e-4)


def test_a_ridge_draws_weights_towards_zero(shop: LogLinear) -> None:
    assert abs(shop.fit(ridge=10.0)["taste"]) < 0.5 * abs(shop.fit()["taste"])


def test_terms_that_say_the_same_share_their_weight(shop: LogLinear) -> None:
    twin = {"first": shop.terms["taste"], "second": shop.terms["taste"]}
    found = fit_weights(
        lambda rows: {name: term[rows] for name, term in twin.items()},
        names=("first", "second"),
        mask=lambda rows: shop.masked[rows],
        targets=lambda rows: shop.taken[rows],
        users=torch.arange(NUM_USERS),
    )
    assert found["first"] == pytest.approx(found["second"], abs=1e-3)
    assert found["first"] > 0.3


def popular_shop() -> object:
    """Everybody takes the most popular item that they do not have."""
    users = [float(2**item) for item in range(NUM_ITEMS)]
    histories = [[n % 4] for n in range(60)]
    return window(histories, [[NUM_ITEMS - 1]] * 60, users=users)


def test_what_explains_the_targets_gets_the_weight() -> None:
    found = weigh_counted(popular_shop(), seed=0)  # type: ignore[arg-type]
    assert set(found) == {"filter", "affinity_category", "popularity", "recent_popularity"}
    assert found["popularity"] + found["recent_popularity"] > 1
    assert found["filter"] == pytest.approx(0, abs=1e-3)  # the same for every item


def test_a_similarity_that_knows_is_weighed_and_one_that_misleads_is_left_out() -> None:
    shop = window([[n % NUM_ITEMS] for n in range(60)], [[(n + 1) % NUM_ITEMS] for n in range(60)])
    knows = torch.nn.functional.one_hot(shop.targets.items, NUM_ITEMS).float()
    assert weigh_all(shop, lambda rows: knows[rows], seed=0)[SIMILARITY] > 1
    misled = weigh_all(shop, lambda rows: -knows[rows], seed=0)
    assert misled[SIMILARITY] == 0
    assert {name: weight for name, weight in misled.items() if name != SIMILARITY} == weigh_counted(shop, seed=0)
