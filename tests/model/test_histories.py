"""Histories as compressed rows."""

from __future__ import annotations

import pytest
import torch

from components.model.histories import Histories


@pytest.fixture
def three() -> Histories:
    return Histories.from_lists([[5, 3], [], [1, 2, 5]], [[1, 2.2], [], [0.2, 1, 3]], [[0, 56], [], [1, 112, -3]])


def lists(histories: Histories) -> list[list[int]]:
    return [part.tolist() for part in histories.items.split(histories.lengths.tolist())]


def test_each_entry_knows_its_user(three: Histories) -> None:
    assert len(three) == 3
    assert three.lengths.tolist() == [2, 0, 3]
    assert three.user_of_entry.tolist() == [0, 0, 2, 2, 2]


def test_rows_come_in_the_order_asked_for_and_may_repeat(three: Histories) -> None:
    chosen = three.rows(torch.tensor([2, 1, 2, 0]))
    assert lists(chosen) == [[1, 2, 5], [], [1, 2, 5], [5, 3]]
    assert chosen.weights.tolist() == pytest.approx([0.2, 1, 3, 0.2, 1, 3, 1, 2.2])
    assert chosen.ages_days.tolist() == [1, 112, -3, 1, 112, -3, 0, 56]
    assert lists(three.rows(slice(1, 3))) == [[], [1, 2, 5]]


def test_no_rows_are_no_users(three: Histories) -> None:
    none = three.rows(torch.zeros(0, dtype=torch.int64))
    assert (len(none), len(none.items)) == (0, 0)


def test_entries_that_are_not_kept_leave_their_users_in_place(three: Histories) -> None:
    kept = three.keep(torch.tensor([False, False, True, False, True]))
    assert lists(kept) == [[], [], [1, 5]]
    assert kept.weights.tolist() == pytest.approx([0.2, 3])
    assert lists(three) == [[5, 3], [], [1, 2, 5]]


def test_a_purchase_counts_one_however_often_and_age_halves_it(three: Histories) -> None:
    assert three.strengths(half_life_days=56).tolist() == pytest.approx(
        [1, 0.5, 0.2 * 2 ** (-1 / 56), 0.25, 1]  # an age below zero, by clocks that differ, is now
    )
    assert three.strengths(half_life_days=None).tolist() == pytest.approx([1, 1, 0.2, 1, 1])


def test_empty_histories_have_users_and_no_entry() -> None:
    empty = Histories.empty(2)
    assert (len(empty), empty.items.dtype, empty.strengths(half_life_days=56).tolist()) == (2, torch.int64, [])
