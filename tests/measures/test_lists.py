"""What lists are like, on lists whose answer can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from components.measures.lists import category_miscalibration, intra_list_diversity, short_lists

CATEGORY = np.array([0, 0, 1, 1, 2, -1])


def test_diversity_is_the_share_of_pairs_of_two_categories() -> None:
    ranked = np.array([[0, 1, -1, -1], [0, 2, 4, 5], [0, 1, 2, 3], [4, -1, -1, -1]])
    found = intra_list_diversity(ranked, CATEGORY)
    assert found[:3].tolist() == pytest.approx([0.0, 1.0, 1 - 2 / 6])
    assert np.isnan(found[3])


def test_a_list_of_the_users_own_shares_is_calibrated_and_one_of_another_category_is_not() -> None:
    history = sp.csr_matrix(np.array([[1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=float))
    ranked = np.array([[1, 3], [2, 3], [0, 1]])
    found = category_miscalibration(ranked, CATEGORY, history)
    assert found[0] == pytest.approx(0.0)
    assert found[1] == pytest.approx(np.log(1 / 0.01))
    assert np.isnan(found[2])  # no categorised history


def test_without_categories_there_is_no_calibration() -> None:
    history = sp.csr_matrix(np.ones((1, 2)))
    assert np.isnan(category_miscalibration(np.array([[0]]), np.array([-1, -1]), history)).all()


def test_a_list_is_short_when_an_item_is_missing() -> None:
    assert short_lists(np.array([[1, 2], [1, -1], [-1, -1]])).tolist() == [False, True, True]
