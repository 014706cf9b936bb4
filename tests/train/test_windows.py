"""Training windows: what may be a target, and what is masked."""

from __future__ import annotations

import pytest
import torch
from toy_windows import NUM_ITEMS, entries, window

from components.train.windows import softmax_targets

# Items 0 and 5 have too few users at the window's start to compete.
HAS_ID = [item not in (0, 5) for item in range(NUM_ITEMS)]


def test_targets_are_new_to_the_user_and_compete() -> None:
    """User 0 had 1 and 2 and takes 2, 3 and the cold 5; user 1 takes nothing new; user 2 had nothing."""
    targets = window([[1, 2], [4], []], [[2, 3, 5], [4], [1, 2]], has_id=HAS_ID).new_targets
    assert targets.lengths.tolist() == [1, 0, 2]
    # places among the candidates 1, 2, 3, 4, 6, ...
    assert targets.items.tolist() == [2, 0, 1]


def test_what_one_user_had_is_new_to_another() -> None:
    assert window([[1], [2]], [[2], [1]]).new_targets.lengths.tolist() == [1, 1]


def test_candidates_have_places_and_others_none() -> None:
    positions = window([[1]], [[2]], has_id=HAS_ID).item_positions
    assert positions.tolist() == [-1, 0, 1, 2, 3, -1, 4, 5, 6, 7, 8, 9]


def test_seen_items_are_masked_where_they_compete() -> None:
    user, position = window([[1, 0], [], [6, 2]], [[2]] * 3, has_id=HAS_ID).seen_positions(torch.tensor([2, 0]))
    assert list(zip(user.tolist(), position.tolist(), strict=True)) == [(0, 4), (0, 1), (1, 0)]


@pytest.mark.parametrize(("power", "busy"), [(0.5, 2 / 3), (0.0, 0.8), (1.0, 0.5)])
def test_busy_users_count_more_but_not_in_proportion(power: float, busy: float) -> None:
    """One user with four targets, one with one, one with none."""
    targets = softmax_targets(entries([[1, 2, 3, 4], [1], []]), power=power)
    assert targets.weights.sum().item() == pytest.approx(1)
    assert targets.weights[:4].sum().item() == pytest.approx(busy)
    assert targets.indptr.tolist() == [0, 4, 5, 5]
    assert softmax_targets(entries([[], []])).weights.tolist() == []
