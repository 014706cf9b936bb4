"""The ablation on a published split, by the parts of benchmarks.quality: no times, no features, no content.

An arm is trained without a fifth of each user's train items, on which its learning rate and the weights of its score
are chosen; then it is trained on all of train and judged on the test file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.ablation.arms import ARMS, REFERENCE, Arm, Outcome, Quality
from benchmarks.machine import cpu_seconds
from benchmarks.quality.__main__ import TUNING_SHARE
from benchmarks.quality.recipe import TERMS, Chosen, choose_filter, choose_weights, fit, measure, recipe_settings
from benchmarks.quality.splits import Log, hide_share, read_split
from components.core.sections import TrainSettings
from components.model.encoders import USER_ITEM
from components.model.propagation import SparseMatrix, TwoHop
from components.model.score import SIMILARITY, Scorer, ScoreWeights


def run_arms(folder: Path, *, names: frozenset[str] | None) -> Iterator[Outcome]:
    """Every arm, and after the reference the score with each of its terms left out."""
    whole = Log(known=read_split(folder / "train.txt"))
    kept, hidden = hide_share(whole.known, share=TUNING_SHARE, seed=0)
    tuning = Log(known=kept)
    test = read_split(folder / "test.txt", shape=whole.known.shape)
    chosen = choose_filter(tuning, hidden, track=_quietly)
    for arm in ARMS:
        if names is not None and arm.name not in names:
            continue
        started = cpu_seconds()
        tried = []
        for settings in arm.candidates(recipe_settings(whole)):
            scorer = _train(tuning, chosen, arm, settings)
            quality, weights = choose_weights(scorer, tuning, hidden, track=_quietly)
            tried.append((quality, settings, weights, scorer))
        quality, settings, weights, on_tuning = max(tried, key=lambda one: one[0])
        scorer = _train(whole, chosen, arm, settings)
        rate = {"learning_rate": round(settings.learning_rate, 5)}
        yield Outcome(
            name=arm.name,
            validation=quality,
            test=_judge(scorer, whole, test, weights),
            cpu_seconds=cpu_seconds() - started,
            settings={**rate, "weights": dict(weights)},
        )
        if arm.name == REFERENCE:
            for left_out in (SIMILARITY, "filter", "popularity"):
                started = cpu_seconds()
                terms = tuple(name for name in TERMS if name != left_out)
                quality, weights = choose_weights(on_tuning, tuning, hidden, track=_quietly, terms=terms)
                yield Outcome(
                    name=f"without {left_out}",
                    validation=quality,
                    test=_judge(scorer, whole, test, weights),
                    cpu_seconds=cpu_seconds() - started,
                    settings={**rate, "weights": dict(weights)},
                )


def _train(log: Log, chosen: Chosen, arm: Arm, settings: TrainSettings) -> Scorer:
    users = {USER_ITEM: _user_item(log.known)} if arm.with_users else None
    return fit(log, chosen, settings=settings, more_relations=users)


def _user_item(known: sp.csr_matrix) -> TwoHop:
    """Users hear from the mean of their items, items from the mean of their users."""
    both = [
        sp.csr_matrix(sp.diags(1 / np.maximum(np.asarray(one.sum(axis=1)).ravel(), 1)) @ one)
        for one in (known, known.T)
    ]
    return TwoHop(SparseMatrix.from_scipy(both[0]), SparseMatrix.from_scipy(both[1]))


def _judge(scorer: Scorer, log: Log, test: sp.csr_matrix, weights: Mapping[str, float]) -> Quality:
    users = np.flatnonzero(np.diff(test.indptr) > 0)
    metrics = measure(scorer.with_weights(ScoreWeights(terms=weights)), log, test, users, track=_quietly)
    return Quality(recall_U=metrics.recall, ndcg_U=metrics.ndcg)


def _quietly(steps: Iterable[Any], label: str) -> Iterable[Any]:
    return steps
