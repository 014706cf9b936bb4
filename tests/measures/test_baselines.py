"""One suite over all baselines. The checkerboard: even users have even items, odd users odd ones, and so it goes on.

User u lacks one item of its colour, so for a baseline that learns from others that item must come first of what is new.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from components.measures.baselines import (
    AllTimePopularity,
    Baseline,
    CategoryPopularity,
    ItemKnn,
    OwnFrequency,
    RecentPopularity,
    Rp3,
)
from components.measures.interactions import Interactions

BASELINES: dict[str, Callable[[], Baseline]] = {
    "popularity": AllTimePopularity,
    "recent popularity": RecentPopularity,
    "category popularity": lambda: CategoryPopularity(exponent=0.5),
    "item-kNN": lambda: ItemKnn(user_exponent=0),
    "item-kNN, users normalised": lambda: ItemKnn(user_exponent=1),
    "RP3": lambda: Rp3(beta=0.3),
    "own frequency": lambda: OwnFrequency(is_decayed=False),
    "own frequency, decayed": lambda: OwnFrequency(is_decayed=True),
}
PERSONAL = ("category popularity", "item-kNN", "item-kNN, users normalised", "RP3")
SIZE = 10
NEWCOMER = SIZE


def interactions(events: list[tuple[int, int, float, float]], category: list[int], num_users: int) -> Interactions:
    users, items, weights, ages = (list(column) for column in zip(*events, strict=True)) if events else ([],) * 4
    return Interactions.of(
        users=users, items=items, weights=weights, ages_days=ages, category=category, num_users=num_users
    )


@pytest.fixture(scope="module")
def checkerboard() -> Interactions:
    cells = [(u, i, 1.0, 1.0) for u in range(SIZE) for i in range(SIZE) if u % 2 == i % 2 and u != i]
    return interactions(cells, [i % 2 for i in range(SIZE)], SIZE + 1)


def fitted(name: str, known: Interactions) -> Baseline:
    baseline = BASELINES[name]()
    baseline.fit(known)
    return baseline


@pytest.mark.parametrize("name", BASELINES)
def test_scores_are_finite_float32_of_every_item_and_free_to_write_into(name: str, checkerboard: Interactions) -> None:
    baseline = fitted(name, checkerboard)
    rows = np.array([4, NEWCOMER, 1])
    scores = baseline.score(rows)
    kept = scores.clone()
    assert (scores.shape, scores.dtype) == ((3, SIZE), torch.float32)
    assert torch.isfinite(scores).all()
    scores[:] = -torch.inf
    assert torch.equal(baseline.score(rows), kept)


@pytest.mark.parametrize("name", PERSONAL)
def test_the_missing_item_of_the_users_colour_comes_first(name: str, checkerboard: Interactions) -> None:
    scores = fitted(name, checkerboard).score(np.arange(SIZE))
    seen = torch.from_numpy(checkerboard.seen[:SIZE].toarray() > 0)
    assert scores.masked_fill(seen, -torch.inf).argmax(dim=1).tolist() == list(range(SIZE))


@pytest.mark.parametrize("name", BASELINES)
def test_scores_of_a_user_do_not_depend_on_the_batch(name: str, checkerboard: Interactions) -> None:
    baseline = fitted(name, checkerboard)
    together = baseline.score(np.arange(SIZE + 1))
    alone = torch.cat([baseline.score(np.array([user])) for user in range(SIZE + 1)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", BASELINES)
def test_a_user_without_history_gets_popularity(name: str) -> None:
    known = interactions(
        [(0, 2, 1, 1), (1, 2, 1, 1), (2, 2, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (2, 0, 1, 1)], [0] * 3, 4
    )
    assert fitted(name, known).score(np.array([3])).argsort(descending=True).tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("name", BASELINES)
def test_a_world_without_events_gives_scores(name: str) -> None:
    scores = fitted(name, interactions([], [0, -1], 2)).score(np.array([0, 1]))
    assert torch.isfinite(scores).all()


def test_recent_popularity_forgets_what_was_bought_long_ago() -> None:
    known = interactions([(0, 0, 1, 200), (1, 0, 1, 200), (2, 0, 1, 200), (0, 1, 1, 2)], [0, 0], 3)
    assert fitted("popularity", known).score(np.array([0])).argmax() == 0
    assert fitted("recent popularity", known).score(np.array([0])).argmax() == 1


def test_popularity_counts_users_and_not_events() -> None:
    known = interactions([(0, 0, 1, 1), (0, 0, 1, 2), (0, 0, 1, 3), (1, 1, 1, 1), (2, 1, 1, 1)], [0, 0], 3)
    assert fitted("popularity", known).score(np.array([0])).tolist() == [[1, 2]]


def test_item_knn_is_the_sum_of_cosines_with_the_history() -> None:
    # Users of items: 0 -> {a, b, c}, 1 -> {a, b}, 2 -> {c}. User 3 had item 0 alone.
    known = interactions(
        [(0, 0, 1, 1), (1, 0, 1, 1), (2, 0, 1, 1), (3, 0, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1), (2, 2, 1, 1)], [0] * 3, 4
    )
    scores = fitted("item-kNN", known).score(np.array([3]))
    expected = [[4 / 4, 2 / np.sqrt(4 * 2), 1 / np.sqrt(4 * 1)]]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float32))


def test_rp3_is_the_random_walk_divided_by_popularity() -> None:
    known = interactions([(0, 0, 1, 1), (0, 1, 1, 1), (1, 0, 1, 1)], [0] * 2, 2)
    scores = fitted("RP3", known).score(np.array([1]))
    # From item 0 to a user (1/2 each), then to an item: user 0 has two items, user 1 one.
    expected = [[(0.5 * 0.5 + 0.5 * 1) / 2**0.3, 0.5 * 0.5]]
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float32))


def test_own_frequency_puts_the_users_own_most_bought_first_and_popularity_after() -> None:
    known = interactions(
        [(0, 0, 1, 300), (0, 0, 1, 300), (0, 1, 1, 1), (1, 3, 1, 1), (2, 3, 1, 1), (1, 2, 1, 1)], [0] * 4, 3
    )
    order = fitted("own frequency", known).score(np.array([0])).argsort(descending=True)
    decayed = fitted("own frequency, decayed", known).score(np.array([0])).argsort(descending=True)
    assert order.tolist() == [[0, 1, 3, 2]]
    assert decayed.tolist() == [[1, 0, 3, 2]]


def test_events_without_weight_are_refused() -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        interactions([(0, 0, 0, 1)], [0], 1)
