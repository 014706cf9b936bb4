"""The service's way to a list, held against the one definition of the score, on random bundles."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from random_score import NO_STATISTICS, random_history, random_scorer

from components.model.histories import Histories
from components.model.retrieval import Retrieval, best_of
from components.model.rules import NO_LIST_RULES, ListRules, ruled_top_k


def by_definition(scorer, history, *, k, include_seen=False, allowed=None, rules=NO_LIST_RULES):
    scores = scorer.score(history, NO_STATISTICS, include_seen=include_seen)
    seen = None if include_seen else history
    mask = None if allowed is None else torch.from_numpy(allowed)
    items, values = ruled_top_k(scores, rules, k=k, histories=seen, allowed=mask)
    kept = items[0] >= 0
    return items[0][kept].tolist(), values[0][kept].tolist()


def assert_same_list(found, expected):
    items, values = expected
    assert found.items.tolist() == items
    assert found.scores.tolist() == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("include_seen", [False, True])
@pytest.mark.parametrize("length", [0, 1, 40, 400])
@pytest.mark.parametrize("flat", [False, True])
def test_lists_are_those_of_the_definition(length: int, include_seen: bool, flat: bool) -> None:
    for seed in range(3):
        scorer, history = random_scorer(seed, flat=flat), random_history(seed, length=length)
        found = Retrieval(scorer).rank(history, NO_STATISTICS, k=20, include_seen=include_seen)
        assert_same_list(found, by_definition(scorer, history, k=20, include_seen=include_seen))


def test_few_items_are_looked_at_where_few_are_popular() -> None:
    scorer, history = random_scorer(1), random_history(1, length=40)
    assert Retrieval(scorer).rank(history, NO_STATISTICS, k=10).num_scored < 1500
    flat = random_scorer(1, flat=True)
    assert Retrieval(flat).rank(Histories.empty(1), NO_STATISTICS, k=10).num_scored == 3000


@pytest.mark.parametrize("share", [0.5, 0.02, 0.001])
def test_a_filter_leaves_full_lists_of_what_it_allows(share: float) -> None:
    rng = np.random.default_rng(7)
    for seed in range(3):
        scorer, history = random_scorer(seed), random_history(seed, length=40)
        allowed = rng.random(3000) < share
        expected = by_definition(scorer, history, k=20, allowed=allowed)
        left = allowed.sum() - allowed[history.items.numpy()].sum()
        assert len(expected[0]) == min(20, left)
        assert_same_list(Retrieval(scorer).rank(history, NO_STATISTICS, k=20, allowed=allowed), expected)
        limited = Retrieval(scorer, run_limit=30).rank(history, NO_STATISTICS, k=20, allowed=allowed)
        assert len(limited.items) == len(expected[0]), "a limit must not cost a place of the list"


def test_nothing_allowed_is_an_empty_list() -> None:
    found = Retrieval(random_scorer(2)).rank(
        random_history(2, length=5), NO_STATISTICS, k=5, allowed=np.zeros(3000, dtype=bool)
    )
    assert (found.items.tolist(), found.scores.tolist()) == ([], [])


def test_rules_make_room_for_the_next_best() -> None:
    scorer, history = random_scorer(3), random_history(3, length=40)
    best = by_definition(scorer, history, k=8)[0]
    rules = ListRules({best[0]: frozenset(best[1:6]), **{other: frozenset([best[0]]) for other in best[1:6]}})
    found = Retrieval(scorer).rank(history, NO_STATISTICS, k=8, rules=rules)
    assert_same_list(found, by_definition(scorer, history, k=8, rules=rules))
    assert not set(best[1:6]) & set(found.items.tolist())


def test_a_limit_loses_items_and_places_none_wrongly() -> None:
    lost = 0
    for seed in range(6):
        scorer, history = random_scorer(seed, flat=True), random_history(seed, length=3)
        exact = Retrieval(scorer).rank(history, NO_STATISTICS, k=20)
        limited = Retrieval(scorer, run_limit=600).rank(history, NO_STATISTICS, k=20)
        score_of = dict(zip(exact.items.tolist(), exact.scores.tolist(), strict=True))
        common = [item for item in limited.items.tolist() if item in score_of]
        assert common == [item for item in exact.items.tolist() if item in set(common)]
        lost += 20 - len(common)
    assert lost > 0


def test_what_each_term_adds_is_its_value_over_the_average_items() -> None:
    for include_seen in (False, True):
        scorer, history = random_scorer(4), random_history(4, length=40)
        found = Retrieval(scorer).rank(history, NO_STATISTICS, k=30, include_seen=include_seen)
        terms = scorer.terms(history, NO_STATISTICS, include_seen=include_seen)
        assert found.terms == tuple(terms)
        for lift_k, term in zip(found.lift_kT.T, terms.values(), strict=True):
            assert lift_k.tolist() == pytest.approx((term[0, found.items] - term.mean()).tolist(), abs=2e-5)


def test_equal_scores_go_to_the_lower_item() -> None:
    scorer = random_scorer(5, flat=True)
    alike = dataclasses.replace(scorer.weights, terms={"popularity": 1.0})
    found = Retrieval(scorer.with_weights(alike)).rank(random_history(5, length=2), NO_STATISTICS, k=200)
    history = set(random_history(5, length=2).items.tolist())
    assert found.items.tolist() == [item for item in range(203) if item not in history][:200]


def test_a_score_that_only_repeats_count_in_is_refused() -> None:
    scorer = random_scorer(6)
    with pytest.raises(ValueError, match="repeat_scale"):
        Retrieval(scorer.with_weights(dataclasses.replace(scorer.weights, repeat_scale=0.0)))


def test_the_best_of_many_equals_are_found_whole() -> None:
    values = np.round(np.random.default_rng(0).normal(size=5000).astype(np.float32), 1)
    items, best = best_of(values, lambda at: at, k=70)
    expected = sorted(range(5000), key=lambda item: (-values[item], item))[:70]
    assert items.tolist() == expected
    assert best.tolist() == values[expected].tolist()
