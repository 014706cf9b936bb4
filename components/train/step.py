"""Train the recommender on windows before the cutoff and write the bundle that the gate will judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from components.core.split import TimeSplit
from components.core.step import Step, StepContext, StepReport
from components.inputs.users import read_histories, read_statistics
from components.model.attributes import ItemAttributes
from components.model.bundle import write_bundle, write_encoder
from components.model.encoders import ItemGraph
from components.model.recommender import Recommender
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.user_vector import StatisticsScaling
from components.train.base_logits import base_logits
from components.train.checkpoint import Checkpoints
from components.train.fit import (
    ranking_quality,
    similarity_of,
    standardised,
    standardised_graph,
    train_recommender,
    weigh_all,
    weigh_counted,
    weigh_repeats,
)
from components.train.index import measure_retrieval
from components.train.launch import announce
from components.train.loop import Epoch
from components.train.ranks import Ranks
from components.train.refusals import refuse_settings, refuse_windows
from components.train.repeatable import repeatable
from components.train.snapshot import Snapshot, read_attributes, read_snapshot
from components.train.tracking import track_run
from components.train.warm_start import Warming, warm_start_key, write_warm_start
from components.train.windows import TrainingWindow
from components.train.world import (
    STATISTICS,
    World,
    cut_window,
    rating_scale,
    read_world,
    strengths,
    with_user_features,
)


@dataclass(frozen=True, kw_only=True)
class _Shipped:
    """What goes into the bundle, over every item of log and catalogue."""

    scorer: Scorer
    attributes: ItemAttributes
    model: Recommender
    graph: ItemGraph


def run(context: StepContext) -> StepReport:
    """clean, features, graph -> bundle."""
    with repeatable():
        return _run(context)


def _run(context: StepContext) -> StepReport:
    settings = context.settings.train
    split = TimeSplit.of(context.moment, context.settings.split)
    items = context.inputs["graph"].table("items.parquet")
    world = read_world(context, items, split)
    refuse_settings(settings, world.device)
    announce(context)
    torch.manual_seed(settings.seed)

    training = [cut_window(world, window) for window in split.training]
    validation = cut_window(world, split.validation)
    refuse_windows([*split.training, split.validation], [*training, validation], STATISTICS)
    scaling = StatisticsScaling.fit(STATISTICS, training[0].statistics_BF)  # known before every window
    raw_validation_BF = validation.statistics_BF
    training = [standardised(scaling, window) for window in training]
    validation = standardised(scaling, validation)

    base_weights = weigh_counted(training[-1], seed=settings.seed)
    shared: dict[str, Any] = {
        "attributes": world.attributes,
        "settings": settings,
        "relations": world.relations,
        "half_life_days": world.half_life_days,
        "feature_names": STATISTICS,
    }
    warming = Warming.of(context, world)
    checkpoints = Checkpoints(context.store, context.unfinished) if context.unfinished else None
    bases = [base_logits(window, base_weights, own_popularity=True) for window in (*training, validation)]
    judged_base = base_logits(validation, base_weights)
    with track_run(context, {"split": str(split.cutoff.date()), "warm_items": len(world.warm)}) as tracker:
        with context.progress.bar("training", total=settings.max_epochs) as advance:

            def on_epoch(epoch: Epoch) -> None:
                tracker.log_epoch(epoch)
                advance()

            first = train_recommender(
                training,
                bases=bases[:-1],
                validation=(validation, judged_base),
                start=strengths(training[0], world.half_life_days),
                on_epoch=on_epoch,
                checkpoints=None if checkpoints is None else checkpoints.named("first"),
                warm=warming.put("first"),
                **shared,
            )
        best = max(first.epochs, key=lambda epoch: epoch.validation)
        last = [*training[1:], validation]
        train_again = partial(
            train_recommender,
            last,
            bases=bases[1:],
            validation=None,
            stop_after=best.number,
            start=strengths(last[0], world.half_life_days),
            on_epoch=lambda epoch: None,
            checkpoints=None if checkpoints is None else checkpoints.named("second"),
            warm=warming.put("second"),
            **shared,
        )
        if not Ranks.here().is_first:
            train_again()
            return StepReport(summary="trained along", rows=0)
        similarity = similarity_of(first.model, validation, world.attributes, temperature=settings.temperature)
        terms = weigh_all(validation, similarity, seed=settings.seed)
        quality = _validation_quality(validation, judged_base, similarity, terms)
        # What served the validation slice is not what will serve: it also says how repeats compare.
        trial = _scorer(first.model, validation, world, scaling, ScoreWeights(terms=terms), settings.temperature)
        weights = weigh_repeats(validation, trial, raw_validation_BF, seed=settings.seed)

        second = train_again()
        shipped = _whole_scorer(context, world, items, split, second.model, scaling, weights)
        facts: dict[str, Any] = {
            "settings": {
                name: getattr(context.settings, name).model_dump(mode="json") for name in ("train", "graph", "split")
            },
            "relation_gates": second.model.encoder.relation_gates(shipped.graph),
            "validation": quality,
            "epochs": best.number,
            "target_types": list(world.events.target_types),
            "retrieval": _retrieval(world, split, shipped.scorer, seed=settings.seed),
        }
        write_bundle(
            context.output,
            items=items,
            attributes=shipped.attributes,
            scorer=shipped.scorer,
            cutoff=split.cutoff,
            facts=facts,
        )
        context.output.write_table("rules.parquet", context.inputs["graph"].table("rules.parquet"))
        if settings.warm_start:
            write_warm_start(context.output, first=first.model, second=second.model, warm=world.warm)
        write_encoder(context.output, model=shipped.model, attributes=shipped.attributes, graph=shipped.graph)
        history = [{"epoch": one.number, "loss": one.loss, "validation": one.validation} for one in first.epochs]
        context.output.path("training.json").write_text(json.dumps({**facts, "history": history}, indent=1))
        tracker.log_result(quality, weights.terms)
    summary = (
        f"{len(world.warm):,} items trained, {items.num_rows:,} scored; epoch {best.number} of {len(first.epochs)}; "
        f"validation recall@20 {quality['recall']:.4f}, NDCG {quality['ndcg']:.4f} "
        f"(without the convolution {quality['recall_without_similarity']:.4f}, "
        f"{quality['ndcg_without_similarity']:.4f}); relations {_shares(facts['relation_gates'])}{warming.note}"
    )
    return StepReport(
        summary=summary,
        rows=items.num_rows,
        statistics={
            **quality,
            "epochs": best.number,
            "retrieval_recall": facts["retrieval"]["recall"],
            "retrieval_scored_items": facts["retrieval"]["scored_items"],
        },
        num_gpus=Ranks.here().size if world.device.type == "cuda" else 0,
    )


def _retrieval(world: World, split: TimeSplit, scorer: Scorer, *, seed: int) -> dict[str, Any]:
    """How the service will find the shipped items, for users as known at the cutoff."""
    ids = world.events.user_ids
    return measure_retrieval(
        scorer,
        read_histories(world.features, split.cutoff, user_ids=ids, item_ids=world.item_ids),
        read_statistics(world.features, split.cutoff, user_ids=ids, names=STATISTICS),
        seed=seed,
    )


def _shares(gates: Mapping[str, float]) -> str:
    """What each relation counts, the most first; one without an edge counts nothing and is not named."""
    counting = sorted((-gate, name) for name, gate in gates.items() if gate > 0)
    return ", ".join(f"{name} {-gate:.0%}" for gate, name in counting) or "none"


def _validation_quality(
    window: TrainingWindow, plain: Tensor, similarity: Callable[[Tensor], Tensor], terms: dict[str, float]
) -> dict[str, float]:
    """Recall and NDCG on the slice that the weights were learnt on: to see progress by, not to claim."""
    weighted = base_logits(window, terms)

    def whole_score(rows: Tensor) -> Tensor:
        whole: Tensor = weighted[rows].float() + terms[SIMILARITY] * similarity(rows)
        return whole

    recall, ndcg = ranking_quality(window, whole_score)
    recall_without, ndcg_without = ranking_quality(window, lambda rows: plain[rows].float())
    return {
        "recall": recall,
        "ndcg": ndcg,
        "recall_without_similarity": recall_without,
        "ndcg_without_similarity": ndcg_without,
    }


def _scorer(
    model: Recommender,
    window: TrainingWindow,
    world: World,
    scaling: StatisticsScaling,
    weights: ScoreWeights,
    temperature: float,
) -> Scorer:
    """A scorer over the warm items as of the window's start."""
    with torch.no_grad():
        model.user_vector.item_degree_I.copy_(window.item_degree_I)
        attributes = world.attributes.to(world.device)
        history_ID, target_ID = model.item_vectors(window.graph, attributes, has_id_I=window.has_id_I)
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=model.user_vector,
        scaling=scaling,
        temperature=temperature,
        counted=window.counted,
        weights=weights,
    )


def _whole_scorer(
    context: StepContext,
    world: World,
    items: pa.Table,
    split: TimeSplit,
    model: Recommender,
    scaling: StatisticsScaling,
    weights: ScoreWeights,
) -> _Shipped:
    """The scorer that ships: over every item of log and catalogue, as of the cutoff. On the CPU, where it serves."""
    attributes = read_attributes(items)
    snapshot: Snapshot = read_snapshot(
        world.graph,
        split.cutoff,
        relations=world.relations,
        attributes=attributes,
        half_life_days=world.half_life_days,
        items=None,
    )
    whole = model.cpu().over_items(torch.from_numpy(world.warm), num_items=items.num_rows)
    whole.user_vector.item_degree_I.copy_(snapshot.users_I)
    graph = standardised_graph(scaling, with_user_features(snapshot.graph, world, split.cutoff))
    with torch.no_grad():
        has_id_I = snapshot.users_I >= world.min_item_users
        history_ID, target_ID = whole.item_vectors(graph, attributes, has_id_I=has_id_I)
    scorer = Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=whole.user_vector,
        scaling=scaling,
        temperature=context.settings.train.temperature,
        counted=snapshot.counted,
        weights=weights,
    )
    return _Shipped(scorer=scorer, attributes=attributes, model=whole, graph=graph)


STEP = Step(
    name="train",
    kind="bundle",
    inputs=("clean", "features", "graph"),
    sections=("train", "split", "graph"),
    rooms=("components.train", "components.model", "components.measures.ranking", "components.inputs"),
    run=run,
    # A scale is a setting of validation, and here it says what a rating is worth.
    fingerprint=lambda context: {"warm_start": warm_start_key(context), "rating_scale": rating_scale(context)},
)
