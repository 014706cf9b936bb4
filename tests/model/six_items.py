"""A shop of six items, small enough to work out by hand.

item      0 milk   1 butter   2 bread   3 rolls   4 soap   5 candle
category  dairy    dairy      bakery    bakery    None     home
users     30       20         10        5         4        0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor

from components.core.artifact import ArtifactWriter
from components.core.settings import load_settings
from components.core.step import Step, StepContext, StepReport, execute
from components.model.attributes import ItemAttributes
from components.model.bundle import write_bundle
from components.model.encoders import ItemGraph
from components.model.histories import Histories
from components.model.item_graph import to_torch
from components.model.linear_filter import FilterRows
from components.model.recommender import Recommender, RecommenderConfig
from components.model.score import Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)
NUM_ITEMS, DIM = 6, 4
TITLES = ("Milk", "Butter", "Bread", "Rolls", "Soap", None)
CATEGORIES = ("dairy", "dairy", "bakery", "bakery", None, "home")
USERS_I = (30.0, 20.0, 10.0, 5.0, 4.0, 0.0)
RECENT_I = (3.0, 2.0, 1.0, 0.0, 0.0, 0.0)
SCALING = StatisticsScaling(("recency_days", "frequency"), (1.0, 2.0), (0.5, 2.0))
WEIGHTS = ScoreWeights(
    terms={"similarity": 0.7, "filter": 0.5, "affinity_category": 0.3, "popularity": 0.9, "recent_popularity": 0.1},
    repeat=1.5,
    repeat_scale=0.4,
)
# Who had milk takes butter, who had bread takes rolls; nothing leads to soap or candle.
FILTER = sp.csr_matrix(
    ([1.0, 0.5, 1.0, 0.25], ([0, 0, 1, 2], [1, 2, 0, 3])), shape=(NUM_ITEMS, NUM_ITEMS), dtype=np.float32
)


def attributes() -> ItemAttributes:
    return ItemAttributes.from_columns({"category": CATEGORIES}, num_items=NUM_ITEMS, affinity_names=["category"])


def item_graph() -> ItemGraph:
    """Two relations; the soap hears from nobody, the candle from the milk alone."""
    together = np.zeros((NUM_ITEMS, NUM_ITEMS))
    together[0, [1, 2]] = [0.75, 0.25]
    together[1, 0] = together[2, 3] = together[3, 2] = 1
    alike = np.zeros((NUM_ITEMS, NUM_ITEMS))
    alike[5, 0] = alike[0, 1] = 1
    return to_torch({"together": sp.csr_matrix(together), "alike": sp.csr_matrix(alike)})


def counted(*, half_life_days: float | None = None) -> CountedTerms:
    return CountedTerms(
        filter_rows=FilterRows.from_scipy(FILTER),
        attributes=attributes(),
        popularity=Popularity(torch.tensor(USERS_I), torch.tensor(RECENT_I)),
        half_life_days=half_life_days,
    )


def recommender(
    *, encoder: str = "light", num_layers: int = 1, num_items: int = NUM_ITEMS, **changes: Any
) -> Recommender:
    """Every weight drawn, the readout included, as after training."""
    model = Recommender(
        RecommenderConfig(
            num_items=num_items,
            dim=DIM,
            num_layers=num_layers,
            encoder=encoder,
            attribute_sizes=attributes().sizes,
            num_statistics=len(SCALING.names),
            half_life_days=56,
            **({"relations": ("together", "alike")} | changes),
        )
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
        for embedding in model.content:
            embedding.weight[0] = 0  # type: ignore[union-attr, index]  # an nn.Embedding
        model.user_vector.item_degree_I[:] = torch.linspace(1, 30, num_items)
    return model.eval()


def scorer(*, model: Recommender | None = None, weights: ScoreWeights = WEIGHTS) -> Scorer:
    model = model or recommender()
    with torch.no_grad():
        has_id_I = torch.tensor(USERS_I) >= 5
        history_ID, target_ID = model.item_vectors(item_graph(), attributes(), has_id_I=has_id_I)
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=model.user_vector,
        scaling=SCALING,
        temperature=0.1,
        counted=counted(half_life_days=56),
        weights=weights,
    )


def three_users() -> tuple[Histories, Tensor]:
    """Histories and raw statistics: bread and milk; nothing; a soap of long ago."""
    histories = Histories.from_lists([[2, 0], [], [4]], [[2.2, 0.2], [], [1.0]], [[0.0, 28.0], [], [112.0]])
    return histories, torch.tensor([[3.0, 12.0], [torch.nan, torch.nan], [200.0, torch.nan]])


def items_table() -> pa.Table:
    return pa.table(
        {
            "item_id": [f"item-{n}" for n in range(NUM_ITEMS)],
            "title": pa.array(TITLES, pa.string()),
            "price": pa.array([1.0, 2.0, None, 0.5, 3.0, 4.0], pa.float32()),
            "price_band": pa.array(["band 0"] * NUM_ITEMS),
            "attribute:category": pa.array(CATEGORIES, pa.string()),
        }
    )


def committed_bundle(
    home: Path, written: Scorer, *, after: Callable[[ArtifactWriter], None] = lambda output: None
) -> Path:
    """The folder of a bundle by the project's own writer; `after` may change files before they are hashed."""

    def run(context: StepContext) -> StepReport:
        write_bundle(
            context.output,
            items=items_table(),
            attributes=attributes(),
            scorer=written,
            cutoff=AS_OF,
            facts={"recipe": {"encoder": "light"}},
        )
        after(context.output)
        return StepReport(summary="six items", rows=NUM_ITEMS)

    step = Step(name="train", kind="bundle", inputs=(), sections=(), rooms=("components.core.errors",), run=run)
    settings = load_settings(home=home)
    return Path(execute(step, settings=settings, inputs={}, run_id="test", as_of=AS_OF).ref.uri)


def dense(graph: Mapping[str, object], name: str) -> Tensor:
    """A relation's matrix, written out."""
    matrix = graph[name]
    rows = torch.repeat_interleave(torch.arange(len(matrix.indptr) - 1), matrix.indptr.diff())  # type: ignore[attr-defined]
    out = torch.zeros(matrix.shape)  # type: ignore[attr-defined]
    out[rows, matrix.indices] = matrix.values  # type: ignore[attr-defined]
    return out
