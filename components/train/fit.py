"""The recipe, from windows in time to a scorer:

1. weigh the counted terms on the last training window, and keep their sum as the base of the logits;
2. train the graph convolution on the training windows, stopping where the validation slice says;
3. weigh all terms on the validation slice, where no input has seen what it predicts;
4. train again for as many epochs one window later, so that the bundle has learnt from all but the hold-out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from components.core.sections import TrainSettings
from components.measures.ranking import list_metrics, top_lists
from components.model.attributes import ItemAttributes
from components.model.encoders import USER_ITEM, ItemGraph, num_user_features
from components.model.histories import Histories
from components.model.propagation import TwoHop
from components.model.recommender import Recommender, RecommenderConfig
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.user_vector import StatisticsScaling
from components.train.checkpoint import Checkpoints
from components.train.loop import Epoch, LoopConfig, train
from components.train.weights import fit_weights
from components.train.windows import TrainingWindow

log = logging.getLogger(__name__)

WEIGHT_USERS = 400  # users that the handful of term weights are learnt from; more move the third digit
VALIDATION_K = 20
# What all other terms may count beside the user's own frequency.
REPEAT_SCALES = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Trained:
    """A recommender and how it got there."""

    model: Recommender
    epochs: list[Epoch]


def weigh_counted(window: TrainingWindow, *, seed: int) -> dict[str, float]:
    """Weights of the counted terms alone, on items new to the user."""
    return weigh(window, lambda rows: {}, names=window.counted.names, seed=seed)


def weigh_all(window: TrainingWindow, similarity: Callable[[Tensor], Tensor], *, seed: int) -> dict[str, float]:
    """Weights of the similarity and the counted terms. `similarity(rows)` -> (b, C) cos / τ.

    A similarity that the slice gives no positive weight is left out, and the counted terms weighed without it.
    """
    names = (SIMILARITY, *window.counted.names)
    weights = weigh(window, lambda rows: {SIMILARITY: similarity(rows)}, names=names, seed=seed)
    if weights[SIMILARITY] > 0:
        return weights
    return {SIMILARITY: 0.0, **weigh_counted(window, seed=seed)}


def weigh_repeats(window: TrainingWindow, scorer: Scorer, statistics_BF: Tensor, *, seed: int) -> ScoreWeights:
    """How the other terms stand beside the user's own frequency, where items seen before compete too.

    By the list's own measure, not by likelihood: a softmax fitted to repeats spreads its mass over the many items that
    nobody repeats, and was worse on every log at hand.
    """
    users = _some_users(len(window.histories), seed)
    candidates = [replace(scorer.weights, repeat=1.0, repeat_scale=scale) for scale in REPEAT_SCALES]
    quality = []
    for weights in candidates:
        trial = scorer.with_weights(weights)
        metrics = []
        for rows in torch.split(users, 128):
            scores = trial.score(window.histories.rows(rows), statistics_BF[rows], include_seen=True)
            taken = _to_scipy(window.targets.rows(rows), scorer.num_items)
            metrics.append(list_metrics(top_lists(scores, k=VALIDATION_K), taken))
        quality.append(float(np.mean(np.concatenate([one.recall + one.ndcg for one in metrics]))))
    return candidates[int(np.argmax(quality))]


def train_recommender(
    windows: Sequence[TrainingWindow],
    attributes: ItemAttributes,
    *,
    settings: TrainSettings,
    relations: tuple[str, ...],
    half_life_days: float | None,
    bases: Sequence[Tensor | None],
    validation: tuple[TrainingWindow, Tensor] | None,
    start: sp.csr_matrix,
    stop_after: int | None = None,
    on_epoch: Callable[[Epoch], None],
    checkpoints: Checkpoints | None = None,
    feature_names: Sequence[str] = (),
    warm: Callable[[Recommender], object] = lambda model: None,
) -> Trained:
    """Train on `windows`, whose `bases` are their base logits; so for `validation`.

    `start` (U, I) are the strengths whose randomised SVD the id vectors begin with; `warm` puts what is known from
    before in its place. The rest as for `train`.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    config = RecommenderConfig(
        num_items=len(windows[0].item_degree_I),
        dim=settings.embedding_dim,
        num_layers=settings.num_layers,
        encoder=settings.encoder,
        relations=relations,
        attribute_sizes=attributes.sizes,
        num_statistics=windows[0].statistics_BF.shape[1],
        half_life_days=half_life_days,
        layer_pooling=settings.layer_pooling,
        normalisation=settings.normalisation,
        encoder_dropout=settings.encoder_dropout,
        relation_bases=settings.relation_bases,
        attention_heads=settings.attention_heads,
        num_user_features=num_user_features(windows[0].graph),
        user_pooling=settings.user_pooling,
    )
    model = Recommender(config)
    model.start(id_vectors=svd_vectors(start, dim=settings.embedding_dim, seed=settings.seed), generator=generator)
    warm(model)
    model.to(windows[0].item_degree_I.device)
    judge = None if validation is None else _judge(*validation, attributes, settings)
    epochs = train(
        model,
        windows,
        attributes,
        config=LoopConfig.of(settings),
        bases=bases,
        validate=judge,
        stop_after=stop_after,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
        feature_names=feature_names,
    )
    return Trained(model=model, epochs=epochs)


def similarity_of(
    model: Recommender, window: TrainingWindow, attributes: ItemAttributes, *, temperature: float
) -> Callable[[Tensor], Tensor]:
    """rows -> (b, C) cos / τ of the window's users and candidates, as of the window's start."""
    with torch.no_grad():
        model.eval()
        model.user_vector.item_degree_I.copy_(window.item_degree_I)
        attributes = attributes.to(window.item_degree_I.device)
        history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=window.has_id_I)
        competing_CD = target_ID[window.candidates_C]

    @torch.no_grad()
    def similarity(rows: Tensor) -> Tensor:
        user_BD = model.user_vectors(window.histories.rows(rows), window.statistics_BF[rows], history_ID)
        return user_BD @ competing_CD.T / temperature

    return similarity


def ranking_quality(window: TrainingWindow, scores: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Mean recall and NDCG of `user_quality`; nan where nobody took anything new."""
    recall_U, ndcg_U = user_quality(window, scores)
    return (float(recall_U.mean()), float(ndcg_U.mean())) if len(recall_U) else (float("nan"), float("nan"))


def user_quality(
    window: TrainingWindow, scores: Callable[[Tensor], Tensor]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Recall and NDCG at 20 on items new to the user, among the window's candidates. `scores(rows)` -> (b, C).

    A value each for the users who took something new, in the window's order.
    """
    wanted = window.new_targets
    able = torch.nonzero(wanted.lengths > 0).ravel()
    recall, ndcg = [np.zeros(0)], [np.zeros(0)]
    for rows in torch.split(able, 256):
        scored = scores(rows).clone()
        user, position = window.seen_positions(rows)
        scored[user, position] = -torch.inf
        taken = wanted.rows(rows)
        matrix = sp.csr_matrix(
            (np.ones(len(taken.items)), taken.items.cpu().numpy(), taken.indptr.cpu().numpy()),
            shape=tuple(scored.shape),
        )
        metrics = list_metrics(top_lists(scored, k=VALIDATION_K), matrix)
        recall.append(metrics.recall)
        ndcg.append(metrics.ndcg)
    return np.concatenate(recall), np.concatenate(ndcg)


def svd_vectors(strengths: sp.csr_matrix, *, dim: int, seed: int) -> Tensor | None:
    """(I, d) item vectors V √s of the degree-normalised user-item matrix (Halko et al. 2011); None where it is tiny."""
    from sklearn.utils.extmath import randomized_svd

    rank = min(dim, min(strengths.shape) - 1)
    if rank < 1 or strengths.nnz == 0:
        return None
    user_degree = np.maximum(np.asarray(strengths.sum(axis=1)).ravel(), 1e-9)
    item_degree = np.maximum(np.asarray(strengths.sum(axis=0)).ravel(), 1e-9)
    scaled = sp.diags(user_degree**-0.5) @ strengths @ sp.diags(item_degree**-0.5)
    _, values, right = randomized_svd(sp.csr_matrix(scaled), rank, n_iter=3, random_state=seed)
    return torch.from_numpy(np.ascontiguousarray(right.T * np.sqrt(values))).float()


def standardised(scaling: StatisticsScaling, window: TrainingWindow) -> TrainingWindow:
    """The window with its raw statistics standardised, those of users in the graph too."""
    graph = standardised_graph(scaling, window.graph)
    return replace(window, statistics_BF=scaling.apply(window.statistics_BF), graph=graph)


def standardised_graph(scaling: StatisticsScaling, graph: ItemGraph) -> ItemGraph:
    """The graph with the raw statistics of its users standardised."""
    relation = graph.get(USER_ITEM)
    if not isinstance(relation, TwoHop) or relation.features_NF is None:
        return graph
    return {**graph, USER_ITEM: replace(relation, features_NF=scaling.apply(relation.features_NF))}


def _judge(
    validation: TrainingWindow, base_BC: Tensor, attributes: ItemAttributes, settings: TrainSettings
) -> Callable[[Recommender], float]:
    def judge(model: Recommender) -> float:
        similarity = similarity_of(model, validation, attributes, temperature=settings.temperature)
        recall, ndcg = ranking_quality(validation, lambda rows: base_BC[rows].float() + similarity(rows))
        return recall + ndcg

    return judge


def weigh(
    window: TrainingWindow, extra: Callable[[Tensor], Mapping[str, Tensor]], *, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Weights of the named terms, the others left out. `extra(rows)` gives those that are not counted, each (b, C)."""
    wanted = window.new_targets
    able = torch.nonzero(wanted.lengths > 0).ravel()
    users = able[_some_users(len(able), seed)]
    num_candidates = len(window.candidates_C)

    def source(rows: Tensor) -> Mapping[str, Tensor]:
        counted = window.counted.compute(window.histories.rows(rows))
        return {**{name: term[:, window.candidates_C] for name, term in counted.items()}, **extra(rows)}

    def mask(rows: Tensor) -> Tensor:
        masked = torch.zeros(len(rows), num_candidates, dtype=torch.bool, device=rows.device)
        masked[window.seen_positions(rows)] = True
        return masked

    def targets(rows: Tensor) -> Tensor:
        return _dense_targets(wanted.rows(rows), num_candidates)

    return fit_weights(source, names=names, mask=mask, targets=targets, users=users)


def _dense_targets(taken: Histories, width: int) -> Tensor:
    dense = torch.zeros(len(taken), width, device=taken.items.device)
    dense[taken.user_of_entry, taken.items] = 1
    return dense / dense.sum(dim=1, keepdim=True).clamp(min=1)


def _to_scipy(taken: Histories, width: int) -> sp.csr_matrix:
    parts = (np.ones(len(taken.items)), taken.items.cpu().numpy(), taken.indptr.cpu().numpy())
    return sp.csr_matrix(parts, shape=(len(taken), width))


def _some_users(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:WEIGHT_USERS]
