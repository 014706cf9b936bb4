"""The ablation on a published split, by the parts of benchmarks.quality: no times, no features, no content.

An arm is trained without a fifth of each user's train items, on which its learning rate and the weights of its score
are chosen; then it is trained on all of train and judged on the test file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.ablation.arms import ARMS, REFERENCE, Arm, Outcome, Quality
from benchmarks.machine import cpu_seconds
from benchmarks.quality.__main__ import TUNING_SHARE
from benchmarks.quality.recipe import STEPS_AN_EPOCH, TEMPERATURE, Chosen, K, Network, choose, whole_window
from benchmarks.quality.splits import Log, hide_share, read_split
from components.core.sections import TrainSettings
from components.measures.ranking import ListMetrics, list_metrics, top_lists
from components.model.encoders import USER_ITEM
from components.model.propagation import SparseMatrix, TwoHop
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.user_vector import StatisticsScaling
from components.train.fit import train_recommender

Weights = Mapping[str, float]
TERMS = ("filter", SIMILARITY, "popularity")
SIMILARITY_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2)
MORE_POPULARITY = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)


def run_arms(folder: Path, *, names: frozenset[str] | None) -> Iterator[Outcome]:
    """Every arm, and after the reference the score with each of its terms left out."""
    whole = Log(known=read_split(folder / "train.txt"))
    kept, hidden = hide_share(whole.known, share=TUNING_SHARE, seed=0)
    tuning = Log(known=kept)
    test = read_split(folder / "test.txt", shape=whole.known.shape)
    chosen = choose(tuning, hidden, network=Network(), track=lambda steps, label: steps)
    for arm in ARMS:
        if names is not None and arm.name not in names:
            continue
        started = cpu_seconds()
        tried = []
        for settings in arm.candidates(_base(whole)):
            scorer = _train(tuning, chosen, arm, settings)
            quality, weights = _choose_weights(scorer, tuning, hidden, terms=TERMS)
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
                quality, weights = _choose_weights(on_tuning, tuning, hidden, terms=terms)
                yield Outcome(
                    name=f"without {left_out}",
                    validation=quality,
                    test=_judge(scorer, whole, test, weights),
                    cpu_seconds=cpu_seconds() - started,
                    settings={**rate, "weights": dict(weights)},
                )


def _base(log: Log) -> TrainSettings:
    """What `benchmarks.quality` trains with, as settings."""
    network = Network()
    return TrainSettings(
        encoder=network.encoder,
        embedding_dim=network.dim,
        num_layers=network.num_layers,
        learning_rate=network.learning_rate,
        warmup_share=network.warmup_share,
        temperature=TEMPERATURE,
        batch_users=int(np.clip(log.known.shape[0] // STEPS_AN_EPOCH, 64, 1024)),
        max_epochs=network.epochs,
        patience=network.epochs,
        history_dropout=network.history_dropout,
        id_dropout=0.0,
        seed=0,
    )


def _train(log: Log, chosen: Chosen, arm: Arm, settings: TrainSettings) -> Scorer:
    window = whole_window(log, chosen)
    if arm.with_users:
        window = replace(window, graph={**window.graph, USER_ITEM: _user_item(log.known)})
    torch.manual_seed(settings.seed)
    attributes = window.counted.attributes
    model = train_recommender(
        [window],
        attributes,
        settings=settings,
        relations=tuple(window.graph),
        half_life_days=chosen.half_life,
        # As benchmarks.quality trains: what everybody takes is explained beforehand.
        bases=[torch.log1p(window.item_degree_I)[None, :]],
        validation=None,
        start=log.known,
        on_epoch=lambda epoch: None,
    ).model
    model.user_vector.item_degree_I.copy_(window.item_degree_I)
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=window.has_id_I)
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=model.user_vector,
        scaling=StatisticsScaling((), (), ()),
        temperature=settings.temperature,
        counted=window.counted,
        weights=ScoreWeights(terms={}),
    )


def _user_item(known: sp.csr_matrix) -> TwoHop:
    """Users hear from the mean of their items, items from the mean of their users."""
    both = [
        sp.csr_matrix(sp.diags(1 / np.maximum(np.asarray(one.sum(axis=1)).ravel(), 1)) @ one)
        for one in (known, known.T)
    ]
    return TwoHop(SparseMatrix.from_scipy(both[0]), SparseMatrix.from_scipy(both[1]))


def _choose_weights(
    scorer: Scorer, log: Log, hidden: sp.csr_matrix, *, terms: tuple[str, ...]
) -> tuple[float, Weights]:
    """-> recall + NDCG of the hidden items, and the weights of `terms` that gave it; the filter's is 1."""
    users = np.flatnonzero(np.diff(hidden.indptr) > 0)
    histories = log.histories(users)
    raw = scorer.unweighted_terms(histories, torch.zeros(len(users), 0))

    def quality(trial: Weights) -> float:
        scores = torch.stack(torch.broadcast_tensors(*(raw[one] * trial[one] for one in trial))).sum(dim=0)
        scores[histories.user_of_entry, histories.items] = -torch.inf
        metrics = list_metrics(top_lists(scores, k=K), hidden[users])
        return float(metrics.recall.mean() + metrics.ndcg.mean())

    # The similarity was trained beside popularity, and comes with it; popularity may then count more or less.
    start = {name: 1.0 if name == "filter" else 0.0 for name in terms}
    beside = tuple(name for name in (SIMILARITY, "popularity") if name in terms)
    if "filter" not in terms:
        tied = [start | dict.fromkeys(beside, 1.0)]
    elif SIMILARITY in terms:
        tied = [start | dict.fromkeys(beside, weight) for weight in SIMILARITY_WEIGHTS]
    else:
        tied = [start]
    best_quality, best = max(((quality(trial), trial) for trial in tied), key=lambda pair: pair[0])
    if "popularity" in terms:
        moved = [best | {"popularity": round(best["popularity"] + more, 4)} for more in MORE_POPULARITY]
        best_quality, best = max(((quality(trial), trial) for trial in moved), key=lambda pair: pair[0])
    return best_quality, best


def _judge(scorer: Scorer, log: Log, test: sp.csr_matrix, weights: Weights) -> Quality:
    weighed = scorer.with_weights(ScoreWeights(terms=weights))
    users = np.flatnonzero(np.diff(test.indptr) > 0)
    parts: list[ListMetrics] = []
    for rows in np.array_split(users, max(1, len(users) // 512)):
        histories = log.histories(rows)
        scores = weighed.score(histories, torch.zeros(len(rows), 0))
        scores[histories.user_of_entry, histories.items] = -torch.inf
        parts.append(list_metrics(top_lists(scores, k=K), test[rows]))
    return Quality(
        recall_U=np.concatenate([part.recall for part in parts]), ndcg_U=np.concatenate([part.ndcg for part in parts])
    )
