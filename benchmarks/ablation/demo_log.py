"""The ablation on Complete Journey, by the very pieces of the training step.

An arm is trained on the training windows and stopped by the validation slice, where its terms are weighed; it is
judged on the hold-out, with histories, graph and counts as of the cutoff. The step's second training, one window later,
is left out: it would double the cost and serve no comparison. Lists are of the items with enough users at the cutoff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.ablation.arms import ARMS, REFERENCE, Arm, Outcome, Quality
from benchmarks.machine import cpu_seconds
from components.core.artifact import Artifact, ArtifactRef, ArtifactWriter
from components.core.command import execute_and_print
from components.core.sections import TrainSettings
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit
from components.core.step import StepContext
from components.core.store import Store
from components.model.encoders import USER_ITEM
from components.model.score import SIMILARITY
from components.model.user_vector import StatisticsScaling
from components.train.base_logits import base_logits
from components.train.fit import similarity_of, standardised, train_recommender, user_quality, weigh
from components.train.windows import TrainingWindow
from components.train.world import STATISTICS, World, cut_window, read_world, strengths

POPULARITY = ("popularity", "recent_popularity")
Similarity = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Shop:
    """The demo log cut into windows, statistics standardised as before the first of them."""

    settings: Settings
    world: World
    training: tuple[TrainingWindow, ...]
    validation: TrainingWindow
    holdout: TrainingWindow


def read_shop() -> Shop:
    """Run the steps before training, as far as they have not run, with the relation `user_item` beside the default."""
    plain = load_settings(project="ablation")
    relations = tuple(dict.fromkeys((*plain.graph.relations, USER_ITEM)))
    settings = plain.model_copy(update={"graph": plain.graph.model_copy(update={"relations": relations})})
    refs: dict[str, ArtifactRef] = {}
    for name in ("ingest", "validate", "features", "graph"):
        ref = execute_and_print(name, inputs=refs, settings=settings)
        refs[ref.kind] = ref
    store = Store(settings.artifact_root)
    inputs = {kind: Artifact.open(store, ref.uri, sha256=ref.sha256, kind=kind) for kind, ref in refs.items()}
    with store.staging() as folder:
        context = StepContext(
            settings=settings,
            as_of=inputs["clean"].as_of,
            run_id="ablation",
            store=store,
            inputs=inputs,
            output=ArtifactWriter(folder),
        )
        split = TimeSplit.of(context.moment, settings.split)
        world = read_world(context, inputs["graph"].table("items.parquet"), split)
        *training, validation, holdout = (
            cut_window(world, window) for window in (*split.training, split.validation, split.holdout)
        )
    scaling = StatisticsScaling.fit(STATISTICS, training[0].statistics_BF)
    return Shop(
        settings=plain,
        world=world,
        training=tuple(standardised(scaling, window) for window in training),
        validation=standardised(scaling, validation),
        holdout=standardised(scaling, holdout),
    )


def run_arms(shop: Shop, *, names: frozenset[str] | None) -> Iterator[Outcome]:
    """Every arm, and after the reference the score with each of its terms left out."""
    base = shop.settings.train
    counted = shop.training[-1].counted.names
    counted_weights = weigh(shop.training[-1], lambda rows: {}, names=counted, seed=base.seed)
    bases = [base_logits(window, counted_weights, own_popularity=True) for window in shop.training]
    judged_base = base_logits(shop.validation, counted_weights)
    for arm in ARMS:
        if names is not None and arm.name not in names:
            continue
        started = cpu_seconds()
        validation, settings, similarities = max(
            (_train(shop, arm, settings, bases, judged_base) for settings in arm.candidates(base)),
            key=lambda one: one[0],
        )
        yield _judged(shop, arm.name, similarities, (SIMILARITY, *counted), validation, settings, started)
        if arm.name == REFERENCE:
            for left_out in ((SIMILARITY,), *((name,) for name in counted if name not in POPULARITY), POPULARITY):
                kept = tuple(name for name in (SIMILARITY, *counted) if name not in left_out)
                name = f"without {' and '.join(left_out)}"
                yield _judged(shop, name, similarities, kept, None, settings, cpu_seconds())


def _train(
    shop: Shop, arm: Arm, settings: TrainSettings, bases: list[Tensor], judged_base: Tensor
) -> tuple[float, TrainSettings, tuple[Similarity, Similarity]]:
    """-> the best epoch's quality on the validation slice, and the similarity there and on the hold-out."""
    relations = shop.world.relations if arm.with_users else shop.settings.graph.relations

    def seen(window: TrainingWindow) -> TrainingWindow:
        return replace(window, graph={name: window.graph[name] for name in relations})

    torch.manual_seed(settings.seed)
    attributes, half_life_days = shop.world.attributes, shop.world.half_life_days
    trained = train_recommender(
        [seen(window) for window in shop.training],
        attributes,
        settings=settings,
        relations=relations,
        half_life_days=half_life_days,
        bases=bases,
        validation=(seen(shop.validation), judged_base),
        start=strengths(shop.training[0], half_life_days),
        on_epoch=lambda epoch: None,
    )
    quality = max(epoch.validation for epoch in trained.epochs)
    scored: Any = tuple(
        # The model's own degrees are the window's that it was asked of last, so each is asked of a copy.
        similarity_of(_copy(trained.model), seen(window), attributes, temperature=settings.temperature)
        for window in (shop.validation, shop.holdout)
    )
    return quality, settings, scored


def _judged(
    shop: Shop,
    name: str,
    similarities: tuple[Similarity, Similarity],
    terms: tuple[str, ...],
    validation: float | None,
    settings: TrainSettings,
    started: float,
) -> Outcome:
    """Weigh the named terms on the validation slice, score the hold-out."""
    on_validation, on_holdout = similarities
    weights = weigh(
        shop.validation,
        lambda rows: {SIMILARITY: on_validation(rows)} if SIMILARITY in terms else {},
        names=terms,
        seed=settings.seed,
    )
    similarity_weight = weights.get(SIMILARITY, 0.0)
    if similarity_weight < 0:  # as the step does: left out
        counted = tuple(name for name in terms if name != SIMILARITY)
        return _judged(shop, name, similarities, counted, validation, settings, started)
    counted_BC = base_logits(shop.holdout, weights)
    recall_U, ndcg_U = user_quality(
        shop.holdout, lambda rows: counted_BC[rows].float() + similarity_weight * on_holdout(rows)
    )
    return Outcome(
        name=name,
        validation=validation,
        test=Quality(recall_U=recall_U, ndcg_U=ndcg_U),
        cpu_seconds=cpu_seconds() - started,
        settings={"learning_rate": round(settings.learning_rate, 5), "weights": weights},
    )


def _copy(model: Any) -> Any:
    again = type(model)(model.config)
    again.load_state_dict(model.state_dict())
    return again.eval()
