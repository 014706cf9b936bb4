"""The recipe on a log without time stamps: choose on a slice, train on everything, score with every term.

1. the linear filter's exponents (and, where the order of items is known, its half-life), by the filter alone;
2. a recommender trained without the slice, beside which the weights of filter, similarity and popularity are chosen;
3. the recommender trained again on everything known.

The parts are those of `components/model` and `components/train`; only the windows differ: a history is its own target,
a third of it hidden in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from benchmarks.quality.splits import Log
from components.measures.ranking import ListMetrics, list_metrics, top_lists
from components.model.attributes import ItemAttributes
from components.model.linear_filter import FilterExponents, FilterRows, build_filter
from components.model.propagation import SparseMatrix, TwoHop
from components.model.recommender import Recommender, RecommenderConfig
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling
from components.train.fit import svd_vectors
from components.train.loop import Epoch, LoopConfig, train
from components.train.windows import TrainingWindow

K = 20
BEHAVIOUR, CONTENT = "co_interaction", "attribute"
TUNING_USERS = 2000
NEIGHBOURS, FILTER_NEIGHBOURS = 32, 512
MIN_ITEM_USERS = 5  # an item with fewer, where content speaks for it, has no id vector
EXPONENTS = tuple(
    FilterExponents(first_item=first, user=user, last_item=last)
    for first, last in ((0.5, 0.5), (0.8, 0.3), (1.0, 0.0), (1.0, 0.2), (0.7, 0.1))
    for user in (0.5, 0.8, 1.0)
)
HALF_LIVES = (None, 10.0, 3.0, 1.0)  # in items of a user's history
ENCODER_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2)
MORE_POPULARITY = (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
# The trained part without the filter: the similarity and the popularity that it was trained beside.
ENCODER_ALONE = {SIMILARITY: 1.0, "popularity": 1.0}
TEMPERATURE = 0.1
STEPS_AN_EPOCH = 20  # at least: a small log needs steps, not large batches

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What of the network a command may set; the same for every log."""

    dim: int = 128
    epochs: int = 5
    encoder: str = "light"
    num_layers: int = 1
    history_dropout: float = 0.3
    learning_rate: float = 0.02
    warmup_share: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the tuning slice decided."""

    exponents: FilterExponents
    half_life: float | None
    weights: ScoreWeights


def choose(
    log: Log, hidden: sp.csr_matrix, *, network: Network, track: Track, say: Callable[[str], None] = lambda text: None
) -> Chosen:
    """Exponents, half-life and weights by recall + NDCG at 20 of the `hidden` (U, I) items of users of `log`."""
    able = np.flatnonzero(np.diff(hidden.indptr) > 0)
    users = np.sort(np.random.default_rng(1).permutation(able)[:TUNING_USERS])
    best, exponents, half_life = -1.0, EXPONENTS[0], None
    for life in HALF_LIVES if log.steps_ago is not None else (None,):
        strengths = _strengths(log, life)
        for one in track(EXPONENTS, "filter"):
            quality = _quality(_walk(strengths, one, users), log.known[users], hidden[users])
            if quality > best:
                best, exponents, half_life = quality, one, life
    chosen = Chosen(exponents=exponents, half_life=half_life, weights=ScoreWeights(terms={}))
    scorer = fit(log, chosen, network=network, seed=0, say=say)
    return replace(chosen, weights=ScoreWeights(terms=_choose_weights(scorer, log, hidden, users, track)))


def fit(
    log: Log,
    chosen: Chosen,
    *,
    network: Network,
    seed: int,
    with_content: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Scorer:
    """Train on whole histories and score with everything counted beside, by the chosen weights."""
    window = whole_window(log, chosen, with_content=with_content)
    known = log.known
    config = RecommenderConfig(
        num_items=log.num_items,
        dim=network.dim,
        num_layers=network.num_layers,
        encoder=network.encoder,
        relations=tuple(window.graph),
        attribute_sizes=(),
        num_statistics=0,
        half_life_days=chosen.half_life,
    )
    model = Recommender(config)
    start = svd_vectors(known, dim=network.dim, seed=seed)
    model.start(id_vectors=start, generator=torch.Generator().manual_seed(seed))
    loop = LoopConfig(
        learning_rate=network.learning_rate,
        warmup_share=network.warmup_share,
        weight_decay=0.0,
        temperature=TEMPERATURE,
        batch_users=int(np.clip(known.shape[0] // STEPS_AN_EPOCH, 64, 1024)),
        max_epochs=network.epochs,
        patience=network.epochs,
        history_dropout=network.history_dropout,
        id_dropout=0.1 if CONTENT in window.graph else 0.0,
        seed=seed,
    )

    def report(epoch: Epoch) -> None:
        say(f"seed {seed}, epoch {epoch.number}: loss {epoch.loss:.4f}")

    attributes = window.counted.attributes
    # What everybody takes is explained beforehand; the vectors are left to say what a user likes more than others do.
    base_1I = torch.log1p(window.item_degree_I)[None, :]
    train(model, [window], attributes, config=loop, bases=[base_1I], validate=None, on_epoch=report)
    model.user_vector.item_degree_I.copy_(window.item_degree_I)
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=window.has_id_I)
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=model.user_vector,
        scaling=StatisticsScaling((), (), ()),
        temperature=TEMPERATURE,
        counted=window.counted,
        weights=chosen.weights,
    )


def whole_window(log: Log, chosen: Chosen, *, with_content: bool = True) -> TrainingWindow:
    """All of a log as one window: what a history hides is to be told from what it shows."""
    known, num_items = log.known, log.num_items
    users_I = torch.from_numpy(np.asarray(known.sum(axis=0)).ravel().astype(np.float32))
    rows = build_filter(_strengths(log, chosen.half_life), exponents=chosen.exponents, neighbours=FILTER_NEIGHBOURS)
    counted = CountedTerms(
        filter_rows=FilterRows.from_scipy(rows),
        attributes=ItemAttributes.from_columns({}, num_items=num_items, affinity_names=()),
        popularity=Popularity(users_I, users_I),
        half_life_days=chosen.half_life,
    )
    graph: dict[str, SparseMatrix | TwoHop] = {BEHAVIOUR: SparseMatrix.from_scipy(symmetric_graph(known))}
    has_id_I = torch.ones(num_items, dtype=torch.bool)
    if log.attributes is not None:
        has_id_I = users_I >= MIN_ITEM_USERS
        if with_content:
            gather, spread = _row_normalised(sp.csr_matrix(log.attributes.T)), _row_normalised(log.attributes)
            graph[CONTENT] = TwoHop(SparseMatrix.from_scipy(gather), SparseMatrix.from_scipy(spread))
    histories = log.histories(np.arange(known.shape[0]))
    return TrainingWindow(
        histories=histories,
        statistics_BF=torch.zeros(len(histories), 0),
        graph=graph,
        item_degree_I=users_I,
        has_id_I=has_id_I,
        counted=counted,
        candidates_C=torch.arange(num_items),
        targets=histories,
        targets_may_be_seen=True,
    )


def symmetric_graph(known: sp.csr_matrix) -> sp.csr_matrix:
    """The strongest neighbours by cosine-normalised co-occurrence, symmetric, degree-normalised on both sides."""
    strongest = build_filter(
        known, exponents=FilterExponents(first_item=0.5, user=1.0, last_item=0.5), neighbours=NEIGHBOURS
    )
    both = strongest.maximum(strongest.T).tocsr()
    degree = np.maximum(np.asarray(both.sum(axis=1)).ravel(), 1e-12)
    return sp.csr_matrix(sp.diags(degree**-0.5) @ both @ sp.diags(degree**-0.5))


def rank(scorer: Scorer, log: Log, users: np.ndarray, *, track: Track) -> np.ndarray:
    """(B, 20) best items of each user, known ones left out."""
    lists = [np.empty((0, K), dtype=np.int64)]
    for rows in track(_chunks(users), "ranking"):
        histories = log.histories(rows)
        scores = scorer.score(histories, torch.zeros(len(rows), 0))
        scores[histories.user_of_entry, histories.items] = -torch.inf
        lists.append(top_lists(scores, k=K))
    return np.concatenate(lists)


def measure(scorer: Scorer, log: Log, wanted: sp.csr_matrix, users: np.ndarray, *, track: Track) -> ListMetrics:
    """Metrics at 20 of each user against their `wanted` (U, I) items."""
    return list_metrics(rank(scorer, log, users, track=track), wanted[users])


def _choose_weights(
    scorer: Scorer, log: Log, hidden: sp.csr_matrix, users: np.ndarray, track: Track
) -> dict[str, float]:
    """The encoder's weight beside the filter's 1, popularity with it as in training; then popularity's alone."""
    best = {"filter": 1.0, SIMILARITY: 0.0, "popularity": 0.0}
    for description, moved, grid in (
        ("weight of the encoder", tuple(ENCODER_ALONE), ENCODER_WEIGHTS),
        ("weight of popularity", ("popularity",), MORE_POPULARITY),
    ):
        trials = [best | {name: round(best[name] + weight, 4) for name in moved} for weight in grid]
        found = np.zeros(len(trials))
        for rows in track(_chunks(users), description):
            terms = scorer.unweighted_terms(log.histories(rows), torch.zeros(len(rows), 0))
            for number, trial in enumerate(trials):
                scores = torch.zeros_like(terms["filter"])
                for one, weight in trial.items():
                    scores.add_(terms[one], alpha=weight)
                found[number] += _quality(scores, log.known[rows], hidden[rows]) * len(rows)
        best = trials[int(np.argmax(found))]
    return best


def _quality(scores: Tensor, known: sp.csr_matrix, wanted: sp.csr_matrix) -> float:
    seen = known.tocoo()
    scores[torch.from_numpy(seen.row).long(), torch.from_numpy(seen.col).long()] = -torch.inf
    metrics = list_metrics(top_lists(scores, k=K), wanted)
    return float((metrics.recall + metrics.ndcg).mean())


def _walk(strengths: sp.csr_matrix, exponents: FilterExponents, users: np.ndarray) -> Tensor:
    """(B, I) the linear filter of some users, without its item-item matrix: user -> items -> users -> items."""
    user_degree = np.maximum(np.asarray(strengths.sum(axis=1)).ravel(), 1e-12)
    item_degree = np.maximum(np.asarray(strengths.sum(axis=0)).ravel(), 1e-12)
    met = (strengths[users] @ sp.diags(item_degree**-exponents.first_item)) @ strengths.T
    ends = (met @ sp.diags(user_degree**-exponents.user)) @ strengths
    return torch.from_numpy((ends.toarray() * item_degree**-exponents.last_item).astype(np.float32))


def _strengths(log: Log, half_life: float | None) -> sp.csr_matrix:
    if half_life is None or log.steps_ago is None:
        return log.known
    strengths = log.known.copy()
    strengths.data = np.exp2(-(log.steps_ago.data - 1) / half_life).astype(np.float32)
    return strengths


def _row_normalised(matrix: sp.csr_matrix) -> sp.csr_matrix:
    total = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1e-12)
    return sp.csr_matrix(sp.diags(1 / total) @ matrix, dtype=np.float32)


def _chunks(users: np.ndarray) -> Sequence[np.ndarray]:
    return np.array_split(users, max(1, -(-len(users) // 512)))
