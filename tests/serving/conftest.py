"""A small real bundle, written by the project's own writer, and an online store filled through Feast."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from components.core.artifact import ArtifactRef, ArtifactWriter
from components.core.schemas import ITEM_STATISTICS, USER_HISTORY, USER_STATISTICS
from components.core.settings import Settings, load_settings
from components.core.step import Step, StepContext, StepReport, execute
from components.model.attributes import ItemAttributes
from components.model.bundle import write_bundle
from components.model.linear_filter import FilterRows
from components.model.score import Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling, UserVector
from tests.serving.event_worker import make_worker as make_worker  # fixtures
from tests.serving.event_worker import worker as worker

AS_OF = datetime(2020, 3, 1, tzinfo=UTC)
KINDS = ("dairy", "bread", "fruit", "snacks")
ITEMS_A_KIND = 10
DIM = 8


@pytest.fixture(autouse=True)
def _counted_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, once loaded, points every later reader of metrics to a folder of its own."""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        monkeypatch.delenv(name, raising=False)


def titles() -> list[str]:
    names = [f"{kind.title()} {n}" for kind in KINDS for n in range(ITEMS_A_KIND)]
    names[2] = "<script>document.title='taken'</script> Dairy 2"
    return names


def hand_made_scorer(attributes: ItemAttributes, *, seed: int) -> Scorer:
    """Items of a kind lie together in the vectors and in the filter; item 0 of a kind is its best known."""
    generator = torch.Generator().manual_seed(seed)
    num_items = len(KINDS) * ITEMS_A_KIND
    kind_I = torch.arange(num_items) // ITEMS_A_KIND
    vectors_ID = torch.nn.functional.one_hot(kind_I, DIM).float()
    vectors_ID = vectors_ID + 0.1 * torch.randn(num_items, DIM, generator=generator)
    vectors_ID = torch.nn.functional.normalize(vectors_ID, dim=1)
    same_kind = (kind_I[:, None] == kind_I[None, :]).numpy() & ~np.eye(num_items, dtype=bool)
    user_vector = UserVector(num_items=num_items, dim=DIM, num_statistics=2, half_life_days=56)
    user_vector.start(generator)
    users_I = (ITEMS_A_KIND - torch.arange(num_items) % ITEMS_A_KIND).float() * 3
    counted = CountedTerms(
        filter_rows=FilterRows.from_scipy(sp.csr_matrix(same_kind.astype(np.float32))),
        attributes=attributes,
        popularity=Popularity(users_I, users_I / 3),
        half_life_days=56,
    )
    terms = {"similarity": 1.0, "filter": 0.3, "affinity_category": 0.5, "popularity": 0.2, "recent_popularity": 0.1}
    return Scorer(
        history_ID=vectors_ID,
        target_ID=vectors_ID.clone(),
        user_vector=user_vector,
        scaling=StatisticsScaling(("recency_days", "frequency"), (2.0, 1.0), (1.0, 1.0)),
        temperature=0.5,
        counted=counted,
        weights=ScoreWeights(terms={**terms, "affinity_brand": 0.1}, repeat=50.0),
    )


def write_small_bundle(output: ArtifactWriter, *, seed: int) -> None:
    categories = [kind.upper() for kind in KINDS for _ in range(ITEMS_A_KIND)]
    brands = ["Own", "Other"] * (len(categories) // 2)
    brands[2] = "Own"
    items = pa.table(
        {
            "item_id": [f"{kind}-{n}" for kind in KINDS for n in range(ITEMS_A_KIND)],
            "title": titles(),
            "price": pa.array([1 + n / 10 for n in range(len(categories))], pa.float64()),
            "price_band": pa.array([n % 3 for n in range(len(categories))], pa.int64()),
            "attribute:category": categories,
            "attribute:brand": brands,
        }
    )
    attributes = ItemAttributes.from_columns(
        {"category": categories, "brand": brands}, num_items=len(categories), affinity_names=("category", "brand")
    )
    write_bundle(
        output,
        items=items,
        attributes=attributes,
        scorer=hand_made_scorer(attributes, seed=seed),
        cutoff=AS_OF - timedelta(days=28),
        facts={},
    )


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., ArtifactRef]:
    """make_bundle(settings, name) commits a bundle to the project's store; another name is another bundle."""

    def make(settings: Settings, name: str, *, spoil_golden: bool = False) -> ArtifactRef:
        def run(context: StepContext) -> StepReport:
            write_small_bundle(context.output, seed=ord(name))
            if spoil_golden:  # the hashes are right, and the scores are not what they were
                path = context.output.path("bundle.json")
                content = json.loads(path.read_text())
                content["golden"]["answer_scores"] = [score + 1 for score in content["golden"]["answer_scores"]]
                path.write_text(json.dumps(content))
            return StepReport(summary="trained by hand", rows=len(titles()))

        step = Step(
            name="train",
            kind="bundle",
            inputs=(),
            sections=(),
            rooms=(),
            run=run,
            fingerprint=lambda _: f"{name} {spoil_golden}",
        )
        return execute(step, settings=settings, inputs={}, run_id="run-1", as_of=AS_OF).ref

    return make


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., ArtifactRef]) -> Path:
    """A bundle for tests that only read it."""
    return Path(make_bundle(load_settings(home=tmp_path_factory.mktemp("bundle")), "a").uri)


@pytest.fixture(scope="session")
def fill_online_store() -> Callable[..., None]:
    """fill_online_store(settings, user_id=…, items=[…]) makes one user known, the first item being the latest."""

    def fill(settings: Settings, *, user_id: str, items: Sequence[str]) -> None:
        from feature_repo.layout import FeastHome
        from feature_repo.store import FeatureRepo

        keys = {"user_id": user_id, "event_timestamp": AS_OF, "created_timestamp": AS_OF}
        history: dict[str, Any] = {
            **keys,
            "history_items": list(items),
            "history_weights": [1.0] * len(items),
            "history_ages_days": [float(day + 1) for day in range(len(items))],
            "recent_items": list(items),
            "recent_times": [AS_OF - timedelta(days=day + 1) for day in range(len(items))],
        }
        statistics = {**dict.fromkeys(USER_STATISTICS.names), **keys, "recency_days": 1.0, "frequency": len(items)}
        statistics |= {"top_categories": [], "top_category_shares": []}
        repo = FeatureRepo(FeastHome.of(settings))
        repo.write_offline(
            {
                "user_history": pa.Table.from_pylist([history], schema=USER_HISTORY),
                "user_statistics": pa.Table.from_pylist([statistics], schema=USER_STATISTICS),
                "item_statistics": pa.Table.from_pylist([], schema=ITEM_STATISTICS),
            }
        )
        repo.apply()
        repo.materialize(AS_OF, user_ids=[user_id])

    return fill
