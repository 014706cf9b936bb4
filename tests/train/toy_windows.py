"""Training windows of a toy shop: whoever had item a takes item a + 1 of a ring, and nothing else tells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from components.model.attributes import ItemAttributes
from components.model.histories import Histories
from components.model.item_graph import to_torch
from components.model.linear_filter import FilterRows
from components.model.recommender import Recommender, RecommenderConfig
from components.model.terms import CountedTerms, Popularity
from components.train.loop import LoopConfig
from components.train.windows import TrainingWindow

NUM_ITEMS, NUM_USERS = 12, 96


def attributes() -> ItemAttributes:
    values = [f"kind {item % 3}" for item in range(NUM_ITEMS)]
    return ItemAttributes.from_columns({"category": values}, num_items=NUM_ITEMS, affinity_names=["category"])


def window(
    histories: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    *,
    has_id: Sequence[bool] = (True,) * NUM_ITEMS,
    users: Sequence[float] = (5.0,) * NUM_ITEMS,
    filter_rows: sp.csr_matrix | None = None,
) -> TrainingWindow:
    """Users whose histories are a day old, and what they then took."""
    has_id_I = torch.tensor(has_id)
    users_I = torch.tensor(users)
    if filter_rows is None:
        filter_rows = sp.csr_matrix((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)
    return TrainingWindow(
        histories=entries(histories),
        statistics_BF=torch.zeros(len(histories), 1),
        graph=to_torch({"met": sp.csr_matrix(np.roll(np.eye(NUM_ITEMS), 1, axis=1))}),
        item_degree_I=users_I,
        has_id_I=has_id_I,
        counted=CountedTerms(
            filter_rows=FilterRows.from_scipy(filter_rows),
            attributes=attributes(),
            popularity=Popularity(users_I, users_I),
            half_life_days=56,
        ),
        candidates_C=torch.nonzero(has_id_I).ravel(),
        targets=entries(targets),
    )


def ring(*, num_users: int = NUM_USERS) -> TrainingWindow:
    return window([[n % NUM_ITEMS] for n in range(num_users)], [[(n + 1) % NUM_ITEMS] for n in range(num_users)])


def entries(items: Sequence[Sequence[int]]) -> Histories:
    return Histories.from_lists(items, [[1.0] * len(row) for row in items], [[1.0] * len(row) for row in items])


def recommender() -> Recommender:
    config = RecommenderConfig(
        num_items=NUM_ITEMS,
        dim=8,
        num_layers=1,
        encoder="light",
        relations=("met",),
        attribute_sizes=attributes().sizes,
        num_statistics=1,
        half_life_days=56,
    )
    model = Recommender(config)
    model.start(id_vectors=None, generator=torch.Generator().manual_seed(0))
    return model


def loop_config(**changes: float) -> LoopConfig:
    given = {
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "temperature": 0.2,
        "batch_users": 32,
        "max_epochs": 8,
        "patience": 2,
        "history_dropout": 0.0,
        "id_dropout": 0.1,
        "seed": 1,
    } | changes
    return LoopConfig(**given)  # type: ignore[arg-type]  # whole numbers among them


def flat(bases: int) -> list[Tensor]:
    """Base logits that say nothing, for as many windows."""
    return [torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.float16)] * bases
