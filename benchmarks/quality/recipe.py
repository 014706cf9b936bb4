"""The recipe on a log without time stamps: choose on a slice, train on everything, score with every term.

1. the linear filter's exponents (and, where the order of items is known, its half-life), by the filter alone;
2. a recommender trained without the slice, beside which the weights of filter, similarity and popularity are chosen;
3. the recommender trained again on everything known.

The parts are those of `components/model` and `components/train`; only the windows differ: a history is its own target,
a third of it hidden in each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from benchmarks.quality.splits import Log
from components.core.sections import TrainSettings
from components.measures.ranking import ListMetrics, list_metrics, top_lists
from components.model.attributes import ItemAttributes
from components.model.linear_filter import FilterExponents, FilterRows, build_filter
from components.model.propagation import Relation, SparseMatrix, TwoHop
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling
from components.train.fit import train_recommender
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
TERMS = ("filter", SIMILARITY, "popularity")
CPU = torch.device("cpu")
STEPS_AN_EPOCH = 20  # at least: a small log needs steps, not large batches

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the tuning slice decided."""

    exponents: FilterExponents
    half_life: float | None
    weights: ScoreWeights


def recipe_settings(log: Log, **changes: Any) -> TrainSettings:
    """How every log without times is trained; `changes` for what a command compares."""
    settings: dict[str, Any] = {
        "embedding_dim": 128,
        "max_epochs": 5,
        "learning_rate": 0.02,
        "warmup_share": 0.25,
        "temperature": 0.1,
        "batch_users": int(np.clip(log.known.shape[0] // STEPS_AN_EPOCH, 64, 1024)),
        "id_dropout": 0.0 if log.attributes is None else 0.1,
        "seed": 0,
    }
    return TrainSettings(**(settings | changes))


def choose(
    log: Log,
    hidden: sp.csr_matrix,
    *,
    settings: TrainSettings,
    track: Track,
    say: Callable[[str], None] = lambda text: None,
    device: torch.device = CPU,
) -> Chosen:
    """Exponents, half-life and weights by recall + NDCG at 20 of the `hidden` (U, I) items of users of `log`."""
    chosen = choose_filter(log, hidden, track=track)
    scorer = fit(log, chosen, settings=settings, say=say, device=device)
    _, weights = choose_weights(scorer, log, hidden, track=track)
    return replace(chosen, weights=ScoreWeights(terms=weights))


def choose_filter(log: Log, hidden: sp.csr_matrix, *, track: Track) -> Chosen:
    """Exponents and half-life, by the filter alone; it has no item-item matrix yet, and is exact."""
    users = _tuning_users(hidden)
    best, exponents, half_life = -1.0, EXPONENTS[0], None
    for life in HALF_LIVES if log.steps_ago is not None else (None,):
        strengths = _strengths(log, life)
        for one in track(EXPONENTS, "filter"):
            quality = _quality(_walk(strengths, one, users), log.known[users], hidden[users])
            if quality > best:
                best, exponents, half_life = quality, one, life
    return Chosen(exponents=exponents, half_life=half_life, weights=ScoreWeights(terms={"filter": 1.0}))


def choose_weights(
    scorer: Scorer, log: Log, hidden: sp.csr_matrix, *, track: Track, terms: Sequence[str] = TERMS
) -> tuple[float, dict[str, float]]:
    """-> recall + NDCG, and the weights of `terms` that gave it. Others are left out.

    The encoder is weighed beside the filter's 1 (alone it needs no weight), popularity with it as in training; then
    popularity alone.
    """
    beside = tuple(name for name in ENCODER_ALONE if name in terms)
    best = {name: 1.0 if name == "filter" else 0.0 for name in terms}
    searches = [
        (beside if SIMILARITY in terms else (), ENCODER_WEIGHTS if "filter" in terms else (1.0,)),
        (("popularity",) if "popularity" in terms else (), MORE_POPULARITY),
    ]
    users, quality = _tuning_users(hidden), np.nan
    for moved, grid in searches:
        if not moved:
            continue
        trials = [best | {name: round(best[name] + weight, 4) for name in moved} for weight in grid]
        found = np.zeros(len(trials))
        for rows in track(_chunks(users), f"weight of {moved[0]}"):
            device = scorer.target_ID.device
            raw = scorer.unweighted_terms(log.histories(rows).to(device), torch.zeros(len(rows), 0, device=device))
            for number, trial in enumerate(trials):
                scores = torch.zeros(len(rows), log.num_items, device=device)
                for name, weight in trial.items():
                    scores.add_(raw[name], alpha=weight)
                found[number] += _quality(scores, log.known[rows], hidden[rows]) * len(rows)
        best, quality = trials[int(np.argmax(found))], float(found.max()) / len(users)
    return quality, best


def fit(
    log: Log,
    chosen: Chosen,
    *,
    settings: TrainSettings,
    with_content: bool = True,
    with_popularity: bool = True,
    more_relations: Mapping[str, Relation] | None = None,
    say: Callable[[str], None] = lambda text: None,
    device: torch.device = CPU,
) -> Scorer:
    """Train on whole histories and score with everything counted beside, by the chosen weights. All but the counting
    is on `device`, the scorer too."""
    window = whole_window(log, chosen, with_content=with_content)
    window = replace(window, graph={**window.graph, **(more_relations or {})}).to(device)
    say(f"seed {settings.seed}, graph and filter counted")
    attributes = window.counted.attributes
    if CONTENT not in window.graph:
        settings = settings.model_copy(update={"id_dropout": 0.0})
    torch.manual_seed(settings.seed)
    trained = train_recommender(
        [window],
        attributes,
        settings=settings.model_copy(update={"patience": settings.max_epochs}),
        relations=tuple(window.graph),
        half_life_days=chosen.half_life,
        # What everybody takes is explained beforehand: the vectors say what a user likes more than others do.
        bases=[torch.log1p(window.item_degree_I)[None, :] if with_popularity else None],
        validation=None,
        start=log.known,
        on_epoch=lambda epoch: say(f"seed {settings.seed}, epoch {epoch.number}: loss {epoch.loss:.4f}"),
    )
    model = trained.model
    model.user_vector.item_degree_I.copy_(window.item_degree_I)
    with torch.no_grad():
        history_ID, target_ID = model.item_vectors(window.graph, attributes.to(device), has_id_I=window.has_id_I)
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=model.user_vector,
        scaling=StatisticsScaling((), (), ()),
        temperature=settings.temperature,
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
    graph: dict[str, Relation] = {BEHAVIOUR: SparseMatrix.from_scipy(symmetric_graph(known))}
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
        device = scorer.target_ID.device
        histories = log.histories(rows).to(device)
        scores = scorer.score(histories, torch.zeros(len(rows), 0, device=device))
        scores[histories.user_of_entry, histories.items] = -torch.inf
        lists.append(top_lists(scores, k=K))
    return np.concatenate(lists)


def measure(scorer: Scorer, log: Log, wanted: sp.csr_matrix, users: np.ndarray, *, track: Track) -> ListMetrics:
    """Metrics at 20 of each user against their `wanted` (U, I) items."""
    return list_metrics(rank(scorer, log, users, track=track), wanted[users])


def _tuning_users(hidden: sp.csr_matrix) -> np.ndarray:
    able = np.flatnonzero(np.diff(hidden.indptr) > 0)
    return np.sort(np.random.default_rng(1).permutation(able)[:TUNING_USERS])


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
