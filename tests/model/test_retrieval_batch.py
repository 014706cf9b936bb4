"""The lists of many users at once, held against those of one user at a time."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import pytest
import random_score
import torch
from random_score import NO_STATISTICS, random_history, random_scorer

from components.model import retrieval_batch
from components.model.compiled import library, library_path
from components.model.histories import Histories
from components.model.retrieval import Retrieval
from components.model.retrieval_batch import BatchRetrieval
from components.model.retrieval_terms import TermTables
from components.model.rules import NO_LIST_RULES, ListRules

pytestmark = pytest.mark.skipif(
    library("retrieval_batch") is None, reason=f"{library_path('retrieval_batch').name} is not built: see compiled.py"
)
LENGTHS = [0, 1, 3, 40, 40, 41, 200, 400, 0, 12]


def many(seed: int, lengths=LENGTHS, *, num_items=3000) -> Histories:
    alone = [random_history(100 * seed + at, length=length, num_items=num_items) for at, length in enumerate(lengths)]
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


def test_a_batch_ranks_as_each_user_alone() -> None:
    for seed in range(4):
        found, one_by_one, alone = both(Retrieval(random_scorer(seed)), many(seed))
        assert_same(found, one_by_one)
        assert alone == 0


@pytest.mark.parametrize("num_items", [1, 5, 31, 32, 33, 300, 1000])
@pytest.mark.parametrize("dim", [1, 7, 16])
def test_shops_and_vectors_of_any_size(monkeypatch, num_items: int, dim: int) -> None:
    monkeypatch.setattr(random_score, "DIM", dim)
    lengths = [0, 1, num_items // 2, num_items - 1, 0]
    for k in (1, 10, num_items):
        scorer = random_scorer(num_items, num_items=num_items)
        found, one_by_one, alone = both(Retrieval(scorer), many(1, lengths, num_items=num_items), k=min(k, num_items))
        assert_same(found, one_by_one)
        if k == 1 and num_items < 1000:  # every item is a column
            assert alone == (1 if num_items == 1 else 0)  # who knows all that there is


def test_without_what_is_compiled_users_are_ranked_one_by_one(monkeypatch) -> None:
    monkeypatch.setattr(retrieval_batch, "library", lambda name: None)
    found, one_by_one, alone = both(Retrieval(random_scorer(1)), many(1))
    assert_same(found, one_by_one)
    assert alone == len(found)


def test_what_would_be_looked_up_outside_the_bundle_is_refused_before() -> None:
    scorer = random_scorer(1)
    histories, vectors = many(1), np.zeros((len(LENGTHS), 16), np.float32)
    for item in (-1, 3000):
        items = histories.items.clone()
        items[7] = item
        outside = dataclasses.replace(histories, items=items)
        with pytest.raises(IndexError, match="outside the bundle's 3000"):
            list(BatchRetrieval(TermTables(scorer)).lists(outside, vectors, k=3))
    rows = scorer.counted.filter_rows
    for indptr in (rows.indptr + 1, rows.indptr.flip(0), torch.cat([rows.indptr[:-1], rows.indptr[-1:] + 1])):
        scorer.counted.filter_rows = dataclasses.replace(rows, indptr=indptr)
        tables = TermTables(random_scorer(1))
        tables.scorer.counted.filter_rows = scorer.counted.filter_rows
        with pytest.raises(ValueError, match="Build it anew"):
            BatchRetrieval(tables)


@pytest.mark.slow
def test_c_touches_no_memory_but_what_it_is_given(tmp_path: Path) -> None:
    """All of this file, by a library that looks after every access and every undefined operation."""
    root = Path(__file__).parents[2]
    shutil.copytree(root / "components", tmp_path / "components", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    sanitized = {**os.environ, "PYTHONPATH": str(tmp_path), "CI": "true"}  # a library that does not load is no skip
    needs.program("cc", package="gcc")
    compiler = "cc -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    compiled = [sys.executable, str(tmp_path / "components" / "model" / "compiled.py"), "--compiler", compiler]
    subprocess.run(compiled, check=True)
    asan = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not slow", "-s", __file__],
        cwd=tmp_path,  # whose components are imported
        env={**sanitized, "LD_PRELOAD": asan.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


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


def test_a_history_that_hardly_counts_hides_no_unpopular_item() -> None:
    scorer = random_scorer(6, num_items=250)
    terms = {"filter": 0.15, "popularity": 1.0, "similarity": 9.0}
    scorer = scorer.with_weights(dataclasses.replace(scorer.weights, terms=terms))
    histories = many(6, [0, 3, 40, 12], num_items=250)
    old = dataclasses.replace(histories, ages_days=histories.ages_days + 1200)
    found, one_by_one, alone = both(Retrieval(scorer), old)
    assert_same(found, one_by_one)
    assert alone == 3
