"""The lists of many users at once, held against those of one user at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from random_score import NO_STATISTICS, random_history, random_scorer

from components.model import retrieval_batch
from components.model.histories import Histories
from components.model.retrieval import Retrieval
from components.model.rules import NO_LIST_RULES, ListRules

LENGTHS = [0, 1, 3, 40, 40, 41, 200, 400, 0, 12]


def many(seed: int, lengths=LENGTHS) -> Histories:
    alone = [random_history(100 * seed + at, length=length) for at, length in enumerate(lengths)]
    parts = ("items", "weights", "ages_days")
    return Histories.from_lists(*([getattr(one, part).tolist() for one in alone] for part in parts))


def both(retrieval: Retrieval, histories: Histories, *, k=20, include_seen=False, allowed=None, rules=NO_LIST_RULES):
    """(lists of the batch, lists of each user alone), and how many of the first were ranked alone after all."""
    statistics = NO_STATISTICS.expand(len(histories), -1)
    users_BD = retrieval.user_vectors(histories, statistics)
    conditions = {"k": k, "include_seen": include_seen, "allowed": allowed, "rules": rules}
    one_by_one = [
        retrieval.rank_known(histories.rows(slice(row, row + 1)), users_BD[row], **conditions, with_reasons=False)
        for row in range(len(histories))
    ]
    asked = []
    rank_known = retrieval.rank_known
    retrieval.rank_known = lambda *given, **others: (asked.append(1), rank_known(*given, **others))[1]
    found = retrieval.rank_many(histories, users_BD, **conditions)
    retrieval.rank_known = rank_known
    return found, one_by_one, len(asked)


def assert_same(found, one_by_one) -> None:
    assert len(found) == len(one_by_one)
    for (items, scores), alone in zip(found, one_by_one, strict=True):
        assert items == alone.items.tolist()
        assert scores == pytest.approx(alone.scores.tolist(), abs=1e-5)


@pytest.mark.parametrize("by_mkl", [True, False])
@pytest.mark.parametrize("users_a_block", [1, 4, 100])
def test_a_batch_ranks_as_each_user_alone(monkeypatch, by_mkl: bool, users_a_block: int) -> None:
    if by_mkl and not torch.backends.mkl.is_available():
        pytest.skip("this processor has no MKL")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: by_mkl)
    monkeypatch.setattr(retrieval_batch, "_BLOCK_BYTES", users_a_block * 4 * 3000)
    together = 0
    for seed in range(4):
        found, one_by_one, alone = both(Retrieval(random_scorer(seed)), many(seed))
        assert_same(found, one_by_one)
        together += len(found) - alone
    assert together == 40


def test_users_whose_bound_reaches_further_are_ranked_alone() -> None:
    few_are_led_to = random_scorer(1, flat=True)
    rows = few_are_led_to.counted.filter_rows
    kept = rows.indices < 300
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])[rows.indptr]
    filter_rows = dataclasses.replace(rows, indptr=indptr, indices=rows.indices[kept], values=rows.values[kept])
    few_are_led_to.counted.filter_rows = filter_rows
    found, one_by_one, alone = both(Retrieval(few_are_led_to), many(1))
    assert_same(found, one_by_one)
    assert 0 < alone < len(found)


@pytest.mark.parametrize("share", [0.5, 0.02, 0.001, 0.0])
def test_a_filter_leaves_what_it_allows(share: float) -> None:
    rng = np.random.default_rng(7)
    for seed in range(3):
        assert_same(*both(Retrieval(random_scorer(seed)), many(seed), allowed=rng.random(3000) < share)[:2])


@pytest.mark.parametrize("k", [1, 7, 300, 3000])
def test_lists_of_any_length(k: int) -> None:
    assert_same(*both(Retrieval(random_scorer(2)), many(2), k=k)[:2])


def test_seen_items_and_rules_are_ranked_as_ever() -> None:
    retrieval, histories = Retrieval(random_scorer(3)), many(3)
    assert_same(*both(retrieval, histories, include_seen=True)[:2])
    best = both(retrieval, histories)[1][3].items.tolist()
    rules = ListRules({best[0]: frozenset(best[1:6]), **{other: frozenset([best[0]]) for other in best[1:6]}})
    found, one_by_one, _ = both(retrieval, histories, rules=rules)
    assert_same(found, one_by_one)
    assert not set(best[1:6]) & set(found[3][0])


def test_a_limited_run_is_limited_for_a_batch_too() -> None:
    far = {"similarity": 0.5, "filter": 0.2, "popularity": 0.5}
    lost = 0
    for seed in range(3):
        scorer = random_scorer(seed)
        scorer = scorer.with_weights(dataclasses.replace(scorer.weights, terms=far))
        found, one_by_one, _ = both(Retrieval(scorer, run_limit=20), many(seed), k=5)
        assert_same(found, one_by_one)
        exact = both(Retrieval(scorer), many(seed), k=5)[0]
        lost += sum(one[0] != other[0] for one, other in zip(found, exact, strict=True))
    assert lost > 0


def test_equal_scores_go_to_the_lower_item() -> None:
    scorer = random_scorer(5)
    alike = dataclasses.replace(scorer.weights, terms={"filter": 0.8, "popularity": 1.0})
    found, one_by_one, alone = both(Retrieval(scorer.with_weights(alike)), many(5, [0, 2, 0]), k=300)
    assert alone == 0
    assert len(set(found[0][1])) < 250
    assert_same(found, one_by_one)


@pytest.mark.parametrize(
    "terms",
    [
        {"popularity": 1.0},
        {"filter": 1.0},
        {"filter": -0.5, "popularity": 0.3},
        {"filter": 0.001, "popularity": 1.0, "similarity": 0.2},
        {"filter": 0.8, "affinity_brand": -0.4},
        {"similarity": 1.0, "filter": 0.2},
    ],
)
def test_whatever_counts_the_lists_are_the_same(terms: dict[str, float]) -> None:
    scorer = random_scorer(4)
    weights = dataclasses.replace(scorer.weights, terms=terms)
    assert_same(*both(Retrieval(scorer.with_weights(weights)), many(4))[:2])


def test_a_history_too_old_to_count_leads_nowhere() -> None:
    histories = many(5)
    old = dataclasses.replace(histories, ages_days=histories.ages_days + 4000)
    assert_same(*both(Retrieval(random_scorer(5)), old)[:2])
