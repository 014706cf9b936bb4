"""What training windows are cut from: the log, the features and the item graph, over the items warm at the cutoff."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
import torch

from components.core.artifact import Artifact
from components.core.errors import SettingsError
from components.core.split import TimeSplit, Window, cutoff_folder
from components.core.step import StepContext
from components.inputs.events import EventLog, read_events
from components.inputs.users import read_histories, read_statistics
from components.model.attributes import ItemAttributes
from components.model.encoders import USER_ITEM, ItemGraph
from components.model.histories import Histories
from components.model.propagation import TwoHop
from components.train.batches import RATING_LOSSES
from components.train.snapshot import distinct_users, read_attributes, read_snapshot
from components.train.windows import TrainingWindow

STATISTICS = ("recency_days", "frequency", "monetary", "basket_size", "price_level", "distinct_items")
# What the graph artifact calls the nodes that `user_item` runs over.
USER_NODE = "user"


@dataclass(frozen=True, kw_only=True)
class World:
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
    rating_scale: tuple[float, float] | None = None  # lowest and highest; None where the loss asks for no ratings


def read_world(context: StepContext, items: pa.Table, split: TimeSplit) -> World:
    graph = context.inputs["graph"]
    settings = context.settings
    warm = np.flatnonzero(distinct_users(graph, split.cutoff) >= settings.graph.min_item_users)
    item_ids = items["item_id"].combine_chunks()
    scale = rating_scale(context)
    events = read_events(
        context.inputs["clean"].partition_paths(),
        item_ids=item_ids,
        track=lambda paths: paths,
        with_ratings=scale is not None,
    )
    return World(
        features=context.inputs["features"],
        graph=graph,
        events=events,
        item_ids=item_ids,
        warm=warm,
        attributes=read_attributes(items, rows=warm),
        relations=settings.graph.relations,
        half_life_days=settings.graph.half_life_days,
        min_item_users=settings.graph.min_item_users,
        device=_device(settings.train.device),
        rating_scale=scale,
    )


def rating_scale(context: StepContext) -> tuple[float, float] | None:
    """Ends of the shop's scale, where the loss learns from ratings."""
    if context.settings.train.loss not in RATING_LOSSES:
        return None
    return context.settings.validation.min_rating, context.settings.validation.max_rating


def cut_window(world: World, window: Window) -> TrainingWindow:
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
    is_learnt_from = np.diff(taken.indptr) > 0
    rated = None if world.rating_scale is None else _ratings(world, window, world.rating_scale)
    if rated is not None:
        is_learnt_from |= np.diff(rated.indptr) > 0
    users = np.flatnonzero(is_learnt_from)
    user_ids = world.events.user_ids.take(pa.array(users))
    whole = read_histories(world.features, window.start, user_ids=user_ids, item_ids=world.item_ids)
    taken = taken[users]
    targets = _as_histories(taken)
    statistics = read_statistics(world.features, window.start, user_ids=user_ids, names=STATISTICS)
    has_id_I = snapshot.users_I >= world.min_item_users
    return TrainingWindow(
        histories=_restrict(whole, world.warm, num_items=len(world.item_ids)),
        statistics_BF=statistics,
        graph=with_user_features(snapshot.graph, world, window.start),
        item_degree_I=snapshot.users_I,
        has_id_I=has_id_I,
        counted=snapshot.counted,
        candidates_C=torch.nonzero(has_id_I).ravel(),
        targets=targets,
        ratings=None if rated is None else _as_histories(sp.csr_matrix(rated[users])),
    ).to(world.device)


def _ratings(world: World, window: Window, scale: tuple[float, float]) -> sp.csr_matrix | None:
    """(U, W) ratings given in the window, 0 the lowest of the scale and 1 the highest; None where there is none.

    A rating of 0 is an entry like any other.
    """
    user, item, rating = world.events.ratings_in(window)
    place_I = np.full(len(world.item_ids), -1)
    place_I[world.warm] = np.arange(len(world.warm))
    known = place_I[item] >= 0
    if not known.any():
        return None
    low, high = scale
    value = np.clip((rating[known] - low) / (high - low), 0, 1).astype(np.float32)
    shape = (world.events.num_users, len(world.warm))
    return sp.csr_matrix((value, (user[known], place_I[item[known]])), shape=shape)


def _as_histories(matrix: sp.csr_matrix) -> Histories:
    """Values as weights; no ages."""
    return Histories(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.from_numpy(matrix.data),
        torch.zeros(matrix.nnz),
    )


def strengths(window: TrainingWindow, half_life_days: float) -> sp.csr_matrix:
    histories = window.histories.to(torch.device("cpu"))
    values = histories.strengths(half_life_days=half_life_days).numpy()
    shape = (len(histories), len(window.item_degree_I))
    return sp.csr_matrix((values, histories.items.numpy(), histories.indptr.numpy()), shape=shape)


def with_user_features(graph: ItemGraph, world: World, moment: datetime) -> ItemGraph:
    """The graph, where it has users among its nodes, with their raw statistics as known at `moment`."""
    relation = graph.get(USER_ITEM)
    if not isinstance(relation, TwoHop):
        return graph
    nodes = world.graph.table(f"{cutoff_folder(moment)}/other_nodes.parquet")
    users = nodes.filter(pc.equal(nodes["kind"], USER_NODE)).sort_by("node")["name"].combine_chunks()
    features_UF = read_statistics(world.features, moment, user_ids=users, names=STATISTICS)
    return {**graph, USER_ITEM: replace(relation, features_NF=features_UF)}


def _restrict(histories: Histories, items: npt.NDArray[np.int64], *, num_items: int) -> Histories:
    """Histories over positions in `items`; other entries are left out."""
    position = torch.full((num_items,), -1)
    position[torch.from_numpy(items)] = torch.arange(len(items))
    kept = histories.keep(position[histories.items] >= 0)
    return replace(kept, items=position[kept.items])


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("train.device is 'cuda', and no CUDA device is here. Set it to 'auto' or 'cpu'.")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
