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


@pytest.mark.parametrize("num_items", [21, 700, 5000])
@pytest.mark.parametrize("num_values", [2, 12, 400, 100_000])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_lists_are_those_of_a_stable_sort(num_items: int, num_values: int, is_transposed: bool) -> None:
    """From nothing but ties to hardly any; short catalogues are read whole, long ones by groups of items."""
    generator = torch.Generator().manual_seed(num_items)
    scores = torch.randint(0, num_values, (40, num_items), generator=generator).float()
    scores[torch.rand(scores.shape, generator=generator) < 0.3] = -torch.inf
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    expected_items = expected.indices.masked_fill(expected.values.isneginf(), NO_ITEM)[:, :20]

    items, values = top_k(scores.T.contiguous().T if is_transposed else scores, k=20)

    assert torch.equal(items, expected_items)
    assert torch.equal(values, expected.values[:, :20])


def test_equals_outside_of_the_groups_that_are_looked_into_are_found() -> None:
    """Four groups hold a 1 each and three are looked into; the lowest item of the four may be in the fourth."""
    scores = torch.zeros(1, 64 * 64)
    scores[0, [63, 64, 65, 66]] = 1  # groups 63, 0, 1 and 2 of 64
    assert top_k(scores, k=3)[0].tolist() == [[63, 64, 65]]
    assert top_k(scores[:, :65], k=65)[0].tolist() == [[63, 64, *range(63)]]


def test_an_empty_catalogue_fills_no_place() -> None:
    assert top_k(torch.zeros(2, 0), k=2)[0].tolist() == [[NO_ITEM, NO_ITEM]] * 2
