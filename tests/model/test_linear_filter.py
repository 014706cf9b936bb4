"""The linear graph filter against its dense formula, and what a user's history gets from it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from components.model import linear_filter
from components.model.histories import Histories
from components.model.linear_filter import FilterExponents, FilterRows, build_filter, strongest_per_row

NUM_USERS, NUM_ITEMS = 20, 8


@pytest.fixture
def strengths() -> sp.csr_matrix:
    generator = np.random.default_rng(4)
    dense = generator.random((NUM_USERS, NUM_ITEMS)) * (generator.random((NUM_USERS, NUM_ITEMS)) < 0.4)
    dense[3], dense[:, 5] = 0, 0  # a user without history and an item that nobody had
    return sp.csr_matrix(dense.astype(np.float32))


def formula(strengths: np.ndarray, exponents: FilterExponents) -> np.ndarray:
    def power(degree: np.ndarray, exponent: float) -> np.ndarray:
        return np.diag([one**-exponent if one else 0 for one in degree])

    user, item = strengths.sum(axis=1), strengths.sum(axis=0)
    walk = power(item, exponents.first_item) @ strengths.T @ power(user, exponents.user) @ strengths
    walk = walk @ power(item, exponents.last_item)
    np.fill_diagonal(walk, 0)
    return walk


@pytest.mark.parametrize(
    "exponents",
    [FilterExponents(), FilterExponents(first_item=1, user=1, last_item=0)],
    ids=["low-pass", "random walk"],
)
@pytest.mark.parametrize("block_rows", [1024, 3])
def test_the_filter_is_its_dense_formula(
    strengths: sp.csr_matrix, exponents: FilterExponents, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_filter, "BLOCK_ROWS", block_rows)
    built = build_filter(strengths, exponents=exponents, neighbours=NUM_ITEMS).toarray()
    np.testing.assert_allclose(built, formula(strengths.toarray(), exponents), rtol=1e-5, atol=1e-7)
    assert np.diag(built).tolist() == [0] * NUM_ITEMS


def test_the_strongest_of_each_row_are_kept_as_they_are(strengths: sp.csr_matrix) -> None:
    whole = formula(strengths.toarray(), FilterExponents())
    cut = build_filter(strengths, exponents=FilterExponents(), neighbours=2).toarray()
    for row, (every, kept) in enumerate(zip(whole, cut, strict=True)):
        best = [column for column in np.argsort(-every)[:2] if every[column] > 0]
        assert sorted(np.flatnonzero(kept)) == sorted(best), row
        np.testing.assert_allclose(kept[best], every[best], rtol=1e-5)


def test_only_the_items_asked_for_take_part(strengths: sp.csr_matrix) -> None:
    items = np.array([0, 2, 3, 7])
    built = build_filter(strengths, exponents=FilterExponents(), neighbours=NUM_ITEMS, items=items).toarray()
    expected = np.zeros((NUM_ITEMS, NUM_ITEMS))
    expected[np.ix_(items, items)] = formula(strengths.toarray()[:, items], FilterExponents())
    np.testing.assert_allclose(built, expected, rtol=1e-5, atol=1e-7)
    empty = build_filter(strengths, exponents=FilterExponents(), neighbours=3, items=np.zeros(0, dtype=np.int64))
    assert (empty.shape, empty.nnz) == ((NUM_ITEMS, NUM_ITEMS), 0)


def test_strongest_entries_leave_out_the_diagonal_and_what_is_not_above_zero() -> None:
    matrix = sp.csr_matrix([[9.0, 1, 3, 2], [5, 9, 0, -1], [0, 0, 9, 0], [1, 2, 3, 9]])
    kept = strongest_per_row(matrix, count=2)
    assert kept.toarray().tolist() == [[0, 0, 3, 2], [5, 0, 0, 0], [0, 0, 0, 0], [0, 2, 3, 0]]
    assert kept.nnz == 5
    assert matrix.toarray()[0].tolist() == [9, 1, 3, 2]  # the input is as it was


def test_one_user_and_many_get_the_same_from_the_filter(strengths: sp.csr_matrix) -> None:
    rows = FilterRows.from_scipy(build_filter(strengths, exponents=FilterExponents(), neighbours=3))
    matrix = strengths.tocsr()
    users = [matrix[user].indices.tolist() for user in range(NUM_USERS)]
    histories = Histories.from_lists(
        users, [matrix[user].data.tolist() for user in range(NUM_USERS)], [[0.0] * len(row) for row in users]
    )
    weights_N = histories.weights
    many = rows.apply(histories, weights_N)
    expected = matrix.toarray() @ sp.csr_matrix(
        (rows.values.numpy(), rows.indices.numpy(), rows.indptr.numpy()), shape=(NUM_ITEMS, NUM_ITEMS)
    )
    np.testing.assert_allclose(many.numpy(), expected, rtol=1e-5, atol=1e-7)
    for user in range(NUM_USERS):
        one = histories.rows(torch.tensor([user]))
        torch.testing.assert_close(rows.apply(one, one.weights), many[user : user + 1], atol=1e-7, rtol=1e-5)
