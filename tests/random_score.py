"""Random scores and histories, of the shape that a shop's have: few items known to many."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from components.model.attributes import ItemAttributes
from components.model.histories import Histories
from components.model.linear_filter import FilterRows
from components.model.score import Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling, UserVector

DIM = 16
NO_STATISTICS = torch.tensor([[1.5, torch.nan]])


def random_scorer(seed: int, *, num_items: int = 3000, flat: bool = False) -> Scorer:
    """Popularity falls off as a shop's does; `flat`: everything is equally known, so that no bound helps."""
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    columns = {
        name: rng.choice([None, *(f"v{n}" for n in range(size))], num_items).tolist()
        for name, size in (("brand", 200), ("category", 30), ("colour", 5), ("size", 700))
    }
    attributes = ItemAttributes.from_columns(columns, num_items=num_items, affinity_names=tuple(columns))
    users_I = torch.from_numpy(rng.zipf(1.6, num_items).clip(max=5000).astype(np.float32) - 1)
    if flat:
        users_I = torch.full((num_items,), 7.0)
    user_vector = UserVector(num_items=num_items, dim=DIM, num_statistics=2, half_life_days=30)
    user_vector.start(generator)
    torch.nn.init.normal_(user_vector.readout[2].weight, std=0.2, generator=generator)
    density = min(8 / num_items, 1.0)
    walk = sp.random(num_items, num_items, density=density, random_state=rng, dtype=np.float32, format="csr")
    history_ID, target_ID = torch.randn(2, num_items, DIM, generator=generator)
    terms = {
        "similarity": 0.4,
        "filter": 0.9,
        "affinity_brand": 0.3,
        "affinity_category": -0.2,
        "affinity_colour": 0.0,
        "affinity_size": 0.1,
        "popularity": 0.5,
        "recent_popularity": -0.1,
    }
    return Scorer(
        history_ID=history_ID,
        target_ID=torch.nn.functional.normalize(target_ID, dim=1),
        user_vector=user_vector,
        scaling=StatisticsScaling(("recency_days", "frequency"), (1.0, 2.0), (0.5, 2.0)),
        temperature=0.3,
        counted=CountedTerms(
            filter_rows=FilterRows.from_scipy(sp.csr_matrix(walk)),
            attributes=attributes,
            popularity=Popularity(users_I, (users_I / 4).floor()),
            half_life_days=30,
        ),
        weights=ScoreWeights(terms=terms, repeat=1.2, repeat_scale=0.4),
    )


def random_history(seed: int, *, length: int, num_items: int = 3000) -> Histories:
    rng = np.random.default_rng(seed)
    items = rng.choice(num_items, length, replace=False)
    return Histories.from_lists(
        [items.tolist()], [rng.gamma(2, 1, length).tolist()], [rng.gamma(2, 20, length).tolist()]
    )
