from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from components.measures.slices import history_slices, item_strata, targets_of


def test_strata_hold_a_third_of_the_interactions_each() -> None:
    # 6 | 3 3 | 2 2 1 1 0: of 18 interactions, six in each part.
    assert item_strata(np.array([3, 6, 2, 3, 1, 0, 2, 1])).tolist() == [1, 0, 2, 1, 2, 2, 2, 2]


def test_strata_of_a_catalogue_without_interactions_are_all_tail() -> None:
    assert item_strata(np.zeros(3, dtype=np.int64)).tolist() == [2, 2, 2]


def test_targets_of_a_stratum_leave_users_in_place() -> None:
    targets = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0]], dtype=np.float32))
    assert targets_of(targets, np.array([False, True, True])).toarray().tolist() == [[0, 1, 0], [0, 0, 0]]


def test_each_user_is_in_exactly_one_history_slice() -> None:
    lengths = np.array([0, 1, 2, 3, 50, 60, 900, 0])
    slices = history_slices(lengths)
    assert np.sum(list(slices.values()), axis=0).tolist() == [1] * len(lengths)
    assert slices["no history"].tolist() == [True, False, False, False, False, False, False, True]


def test_users_without_any_history_leave_the_other_slices_empty() -> None:
    slices = history_slices(np.array([0, 0]))
    assert [members.sum() for members in slices.values()] == [2, 0, 0, 0]
