"""Ranking metrics: by hand, and against an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_precision,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from components.measures.ranking import coverage, hits, list_metrics, novelty, popularity_lift, top_lists
from components.model.ranking import top_k


def targets(*rows: list[int], width: int) -> sp.csr_matrix:
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([item for row in rows for item in row], dtype=np.int32)
    return sp.csr_matrix((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=(len(rows), width))


def test_metrics_of_lists_worked_out_by_hand() -> None:
    ranked = np.array([[3, 1, 0], [2, 4, -1]])
    metrics = list_metrics(ranked, targets([1, 0, 5, 6], [7], width=8))

    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert metrics.recall.tolist() == [0.5, 0.0]
    assert metrics.precision.tolist() == pytest.approx([2 / 3, 0.0])
    assert metrics.ndcg.tolist() == pytest.approx([(1 / np.log2(3) + 1 / np.log2(4)) / ideal, 0.0])
    assert metrics.hit_rate.tolist() == [1.0, 0.0]
    assert metrics.reciprocal_rank.tolist() == [0.5, 0.0]


def test_a_perfect_list_is_worth_exactly_one() -> None:
    metrics = list_metrics(np.array([[4, 2, 0, 1]]), targets([0, 2, 4], width=5))
    assert (metrics.recall[0], metrics.ndcg[0], metrics.reciprocal_rank[0]) == (1.0, 1.0, 1.0)


def test_metrics_equal_torchmetrics_on_random_lists() -> None:
    generator = np.random.default_rng(3)
    num_users, num_items, k = 60, 90, 20
    scores = torch.from_numpy(generator.normal(size=(num_users, num_items)).astype(np.float32))
    truth = generator.random((num_users, num_items)) < 0.05
    truth[:, 0] |= ~truth.any(axis=1)
    metrics = list_metrics(top_lists(scores, k=k), sp.csr_matrix(truth.astype(np.float32)))

    for user in range(num_users):
        wanted = torch.from_numpy(truth[user])
        for values, independent in (
            (metrics.recall, retrieval_recall),
            (metrics.precision, retrieval_precision),
            (metrics.hit_rate, retrieval_hit_rate),
            (metrics.ndcg, retrieval_normalized_dcg),
            (metrics.reciprocal_rank, retrieval_reciprocal_rank),
        ):
            assert values[user] == pytest.approx(float(independent(scores[user], wanted, top_k=k)), abs=1e-6)


def test_a_user_without_targets_has_no_value() -> None:
    metrics = list_metrics(np.array([[0, 1]]), targets([], width=3))
    assert all(np.isnan(values).all() for values in metrics.by_name().values())


def test_the_mean_over_no_user_is_nan() -> None:
    means = list_metrics(np.empty((0, 5), dtype=np.int64), targets(width=3)).means()
    assert all(np.isnan(value) for value in means.values())


def test_an_absent_item_is_never_a_hit_and_targets_beyond_the_catalogue_are_misses() -> None:
    # Column 2 of the first user would be reached by -1 counted back from the second user's first column.
    ranked = np.array([[0, -1], [-1, -1]])
    assert hits(ranked, targets([2], [0], width=3)).tolist() == [[False, False], [False, False]]
    assert list_metrics(np.array([[0, 1]]), targets([0, 9], width=10)).recall.tolist() == [0.5]


def test_the_lists_that_are_judged_are_the_lists_that_are_served() -> None:
    scores = torch.randint(0, 9, (7, 3000), generator=torch.Generator().manual_seed(1)).float()
    scores[0] = -torch.inf
    assert top_lists(scores, k=20).tolist() == top_k(scores, k=20)[0].tolist()


def test_equal_scores_are_listed_by_item_and_masked_items_are_left_out() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, -torch.inf]])
    assert top_lists(scores, k=5).tolist() == [[1, 2, 0, -1, -1]]


def test_coverage_counts_each_listed_item_once() -> None:
    assert coverage(np.array([[0, 1], [1, -1]]), num_items=8) == 0.25
    assert np.isnan(coverage(np.array([[0, 1]]), num_items=0))


def test_novelty_is_the_surprise_of_a_list_in_bits() -> None:
    popularity = np.array([8, 4, 1, 0])
    values = novelty(np.array([[0, 1], [2, 3], [-1, -1]]), popularity, num_users=8)
    assert values[:2].tolist() == [0.5, 3.0]
    assert np.isnan(values[2])


def test_popularity_lift_compares_lists_with_what_was_taken() -> None:
    popularity = np.array([10, 2, 4])
    assert popularity_lift(np.array([[0, 1]]), popularity, targets([2, 1], width=3)) == 2.0
    assert np.isnan(popularity_lift(np.array([[0, 1]]), popularity, targets([], width=3)))
