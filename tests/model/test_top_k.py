"""The best k of a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.model.histories import Histories
from components.model.ranking import NO_ITEM, top_k


def test_lists_run_from_the_best_downwards_with_their_scores() -> None:
    items, scores = top_k(torch.tensor([[0.1, 0.4, 0.2, 0.3]]), k=3)
    assert items.tolist() == [[1, 3, 2]]
    assert scores.tolist() == [pytest.approx([0.4, 0.3, 0.2])]


def test_seen_items_and_items_that_are_not_allowed_are_left_out() -> None:
    scores = torch.tensor([[4.0, 3, 2, 1]] * 2)
    histories = Histories.from_lists([[0], []], [[1.0], []], [[0.0], []])
    allowed = torch.tensor([True, True, False, True])
    assert top_k(scores, k=2, histories=histories)[0].tolist() == [[1, 2], [0, 1]]
    assert top_k(scores, k=2, histories=histories, allowed=allowed)[0].tolist() == [[1, 3], [0, 1]]
    assert scores[0].tolist() == [4, 3, 2, 1]  # the caller's scores are as they were


def test_places_that_nothing_can_take_are_marked() -> None:
    scores = torch.tensor([[4.0, 3, 2]])
    had_all_but_one = Histories.from_lists([[0, 2]], [[1.0, 1]], [[0.0, 0]])
    items, values = top_k(scores, k=5, histories=had_all_but_one)
    assert items.tolist() == [[1, NO_ITEM, NO_ITEM, NO_ITEM, NO_ITEM]]
    assert values.tolist() == [[3, *[-np.inf] * 4]]


@pytest.mark.parametrize("num_items", [5, 100, 3000])
def test_equal_scores_go_to_the_lower_index_at_the_lists_end_too(num_items: int) -> None:
    scores = torch.zeros(2, num_items)
    scores[1, 3] = 1
    items, _ = top_k(scores, k=4)
    assert items.tolist() == [[0, 1, 2, 3], [3, 0, 1, 2]]


def test_lists_full_of_ties_are_those_of_a_stable_sort() -> None:
    scores = torch.randint(0, 12, (40, 500), generator=torch.Generator().manual_seed(0)).float()
    expected = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :50]
    assert torch.equal(top_k(scores, k=50)[0], expected)
