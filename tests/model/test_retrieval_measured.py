"""What a bundle says of its own retrieval."""

from __future__ import annotations

import pytest
import torch
from random_score import NO_STATISTICS, random_history, random_scorer

from components.model.histories import Histories
from components.train import index
from components.train.index import measure_retrieval


def users(count: int, *, length: int) -> tuple[Histories, torch.Tensor]:
    rows = [random_history(seed, length=length) for seed in range(count)]
    lists = [[getattr(row, name).tolist() for row in rows] for name in ("items", "weights", "ages_days")]
    return Histories.from_lists(*lists), NO_STATISTICS.repeat(count, 1)


def test_lists_are_found_whole_without_a_limit_where_few_items_are_looked_at() -> None:
    found = measure_retrieval(random_scorer(1), *users(30, length=40), seed=0)
    assert (found["run_limit"], found["recall"], found["users"], found["k"]) == (None, 1.0, 30, 20)
    assert 20 <= found["scored_items"] < 600


def test_a_limit_is_taken_where_it_loses_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RUN_LIMITS", (1, 2900))
    found = measure_retrieval(random_scorer(1, flat=True), *users(10, length=0), seed=0, most_scored=1000)
    assert found["run_limit"] == 2900
    assert index.LEAST_RECALL <= found["recall"] <= 1.0
    assert found["scored_items"] <= 2900


def test_every_item_is_looked_at_where_each_limit_loses_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RUN_LIMITS", (80, 200))
    found = measure_retrieval(random_scorer(1, flat=True), *users(10, length=0), seed=0, most_scored=1000)
    assert (found["run_limit"], found["recall"]) == (None, 1.0)
    assert found["scored_items"] == 3000


def test_recall_is_of_the_whole_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """A retrieval that misplaces what the history leads to is noticed, whatever it says of itself."""
    from components.model.retrieval_terms import TermTables

    monkeypatch.setattr(TermTables, "run_above", lambda self, static: 0)
    monkeypatch.setattr(TermTables, "partial_led_to", lambda self, user: user.filter.log_C * 0 - 1e6)
    assert measure_retrieval(random_scorer(1), *users(10, length=40), seed=0)["recall"] < index.LEAST_RECALL
