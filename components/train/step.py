"""Train the recommender on windows before the cutoff and write the bundle that the gate will judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor

from components.core.artifact import Artifact
from components.core.errors import ContractError, SettingsError
from components.core.split import TimeSplit, Window
from components.core.step import Step, StepContext, StepReport
from components.inputs.events import EventLog, read_events
from components.inputs.users import read_histories, read_statistics
from components.model.attributes import ItemAttributes
from components.model.bundle import write_bundle, write_encoder
from components.model.encoders import ItemGraph
from components.model.histories import Histories
from components.model.recommender import Recommender
from components.model.score import SIMILARITY, Scorer, ScoreWeights
from components.model.user_vector import StatisticsScaling
from components.train.fit import (
    ranking_quality,
    similarity_of,
    standardised,
    train_recommender,
    weigh_all,
    weigh_counted,
    weigh_repeats,
)
from components.train.loop import Epoch, base_logits
from components.train.snapshot import Snapshot, distinct_users, read_attributes, read_snapshot
from components.train.tracking import track_run
from components.train.windows import TrainingWindow

STATISTICS = ("recency_days", "frequency", "monetary", "basket_size", "price_level", "distinct_items")


@dataclass(frozen=True, kw_only=True)
class _World:
    """What every window is cut from. Items here are the warm ones at the cutoff; `warm` has their whole-table rows."""

    features: Artifact
    graph: Artifact
    events: EventLog
    item_ids: pa.StringArray  # the whole table
    warm: npt.NDArray[np.int64]
    attributes: ItemAttributes
    relations: tuple[str, ...]
    half_life_days: float
    min_item_users: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class _Shipped:
    """What goes into the bundle, over every item of log and catalogue."""

    scorer: Scorer
    attributes: ItemAttributes
    model: Recommender
    graph: ItemGraph


def run(context: StepContext) -> StepReport:
    """clean, features, graph -> bundle."""
    settings = context.settings.train
    split = TimeSplit.of(context.moment, context.settings.split)
    items = context.inputs["graph"].table("items.parquet")
    world = _read_world(context, items, split)
    torch.manual_seed(settings.seed)

    training = [_window(world, window) for window in split.training]
    validation = _window(world, split.validation)
    _refuse_too_little(training, validation, split)
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
    }
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
                num_epochs=settings.max_epochs,
                start=_strengths(training[0], world.half_life_days),
                on_epoch=on_epoch,
                **shared,
            )
        best = max(first.epochs, key=lambda epoch: epoch.validation)
        similarity = similarity_of(first.model, validation, world.attributes, temperature=settings.temperature)
        terms = weigh_all(validation, similarity, seed=settings.seed)
        quality = _validation_quality(validation, judged_base, similarity, terms)
        # What served the validation slice is not what will serve: it also says how repeats compare.
        trial = _scorer(first.model, validation, world, scaling, ScoreWeights(terms=terms), settings.temperature)
        weights = weigh_repeats(validation, trial, raw_validation_BF, seed=settings.seed)

        last = [*training[1:], validation]
        second = train_recommender(
            last,
            bases=bases[1:],
            validation=None,
            num_epochs=settings.max_epochs,
            stop_after=best.number,
            start=_strengths(last[0], world.half_life_days),
            on_epoch=lambda epoch: None,
            **shared,
        )
        shipped = _whole_scorer(context, world, items, split, second.model, scaling, weights)
        facts = {
            "settings": {
                name: getattr(context.settings, name).model_dump(mode="json") for name in ("train", "graph", "split")
            },
            "relation_gates": second.model.encoder.relation_gates(),
            "validation": quality,
            "epochs": best.number,
            "target_types": list(world.events.target_types),
        }
        write_bundle(
            context.output,
            items=items,
            attributes=shipped.attributes,
            scorer=shipped.scorer,
            cutoff=split.cutoff,
            facts=facts,
        )
        write_encoder(context.output, model=shipped.model, attributes=shipped.attributes, graph=shipped.graph)
        history = [{"epoch": one.number, "loss": one.loss, "validation": one.validation} for one in first.epochs]
        context.output.path("training.json").write_text(json.dumps({**facts, "history": history}, indent=1))
        tracker.log_result(quality, weights.terms)
    summary = (
        f"{len(world.warm):,} items trained, {items.num_rows:,} scored; epoch {best.number} of {len(first.epochs)}; "
        f"validation recall@20 {quality['recall']:.4f}, NDCG {quality['ndcg']:.4f} "
        f"(without the convolution {quality['recall_without_similarity']:.4f}, "
        f"{quality['ndcg_without_similarity']:.4f})"
    )
    return StepReport(summary=summary, rows=items.num_rows, statistics={**quality, "epochs": best.number})


def _read_world(context: StepContext, items: pa.Table, split: TimeSplit) -> _World:
    graph = context.inputs["graph"]
    settings = context.settings
    warm = np.flatnonzero(distinct_users(graph, split.cutoff) >= settings.graph.min_item_users)
    item_ids = items["item_id"].combine_chunks()
    return _World(
        features=context.inputs["features"],
        graph=graph,
        events=read_events(context.inputs["clean"].partition_paths(), item_ids=item_ids, track=lambda paths: paths),
        item_ids=item_ids,
        warm=warm,
        attributes=read_attributes(items, rows=warm),
        relations=settings.graph.relations,
        half_life_days=settings.graph.half_life_days,
        min_item_users=settings.graph.min_item_users,
        device=_device(settings.train.device),
    )


def _window(world: _World, window: Window) -> TrainingWindow:
    """Users who took something in the window, as they and the items were known at its start."""
    snapshot = read_snapshot(
        world.graph,
        window.start,
        relations=world.relations,
        attributes=world.attributes,
        half_life_days=world.half_life_days,
        items=world.warm,
    )
    taken = sp.csr_matrix(world.events.targets_in(window)[:, world.warm])
    users = np.flatnonzero(np.diff(taken.indptr) > 0)
    user_ids = world.events.user_ids.take(pa.array(users))
    whole = read_histories(world.features, window.start, user_ids=user_ids, item_ids=world.item_ids)
    taken = taken[users]
    zeros = torch.zeros(taken.nnz)
    targets = Histories(
        torch.from_numpy(taken.indptr.astype(np.int64)), torch.from_numpy(taken.indices.astype(np.int64)), zeros, zeros
    )
    statistics = read_statistics(world.features, window.start, user_ids=user_ids, names=STATISTICS)
    has_id_I = snapshot.users_I >= world.min_item_users
    return TrainingWindow(
        histories=_restrict(whole, world.warm, num_items=len(world.item_ids)),
        statistics_BF=statistics,
        graph=snapshot.graph,
        item_degree_I=snapshot.users_I,
        has_id_I=has_id_I,
        counted=snapshot.counted,
        candidates_C=torch.nonzero(has_id_I).ravel(),
        targets=targets,
    ).to(world.device)


def _restrict(histories: Histories, items: npt.NDArray[np.int64], *, num_items: int) -> Histories:
    """Histories over positions in `items`; other entries are left out."""
    position = torch.full((num_items,), -1)
    position[torch.from_numpy(items)] = torch.arange(len(items))
    kept = histories.keep(position[histories.items] >= 0)
    return replace(kept, items=position[kept.items])


def _strengths(window: TrainingWindow, half_life_days: float) -> sp.csr_matrix:
    histories = window.histories.to(torch.device("cpu"))
    values = histories.strengths(half_life_days=half_life_days).numpy()
    shape = (len(histories), len(window.item_degree_I))
    return sp.csr_matrix((values, histories.items.numpy(), histories.indptr.numpy()), shape=shape)


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
    world: _World,
    scaling: StatisticsScaling,
    weights: ScoreWeights,
    temperature: float,
) -> Scorer:
    """A scorer over the warm items as of the window's start."""
    with torch.no_grad():
        model.user_vector.item_degree_I.copy_(window.item_degree_I)
        history_ID, target_ID = model.item_vectors(window.graph, world.attributes, has_id_I=window.has_id_I)
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
    world: _World,
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
    with torch.no_grad():
        has_id_I = snapshot.users_I >= world.min_item_users
        history_ID, target_ID = whole.item_vectors(snapshot.graph, attributes, has_id_I=has_id_I)
    scorer = Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=whole.user_vector,
        scaling=scaling,
        temperature=context.settings.train.temperature,
        counted=snapshot.counted,
        weights=weights,
    )
    return _Shipped(scorer=scorer, attributes=attributes, model=whole, graph=snapshot.graph)


def _refuse_too_little(training: Sequence[TrainingWindow], validation: TrainingWindow, split: TimeSplit) -> None:
    named = [*zip(split.training, training, strict=True), (split.validation, validation)]
    for span, window in named:
        if not len(window) or not int(window.new_targets.lengths.sum()):
            raise ContractError(
                f"Nobody took an item that was new to them between {span.start:%Y-%m-%d} and {span.end:%Y-%m-%d}, so "
                "there is nothing to learn from. Give a longer log, or set split.window_days or split.training_windows "
                "to fit it."
            )


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("train.device is 'cuda', and no CUDA device is here. Set it to 'auto' or 'cpu'.")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


STEP = Step(
    name="train",
    kind="bundle",
    inputs=("clean", "features", "graph"),
    sections=("train", "split", "graph"),
    rooms=("components.train", "components.model", "components.measures.ranking", "components.inputs"),
    run=run,
)
