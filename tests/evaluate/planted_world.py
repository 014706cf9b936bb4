"""A shop where what follows is planted: whoever had item a < 60 takes item 60 + a in the hold-out, and never before.

Nothing before the cutoff tells it, so no baseline can know; a bundle whose vectors say so knows it all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch

from components.core.artifact import Artifact, ArtifactRef, Manifest
from components.core.day_table import DayTable
from components.core.live import move_pointer, restore_pointer
from components.core.schemas import CATALOG, EVENTS
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit
from components.core.step import Execution, Step, StepContext, StepReport, execute
from components.core.store import Store
from components.evaluate.step import STEP
from components.features.snapshots import Snapshots
from components.model.attributes import ItemAttributes
from components.model.bundle import write_bundle
from components.model.linear_filter import FilterRows
from components.model.score import Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling, UserVector

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)
NUM_USERS, NUM_KEYS, NUM_ITEMS = 180, 60, 400
CATEGORIES = ("dairy", "bread", "fruit", "snacks")
STATISTICS = ("recency_days", "frequency")
SCRIPT = "<script>alert(1)</script> & 'Cheese'"


@dataclass(frozen=True)
class World:
    """Artifacts of one shop, and the means to judge bundles in it."""

    settings: Settings
    clean: ArtifactRef
    features: ArtifactRef
    graph: ArtifactRef
    events: list[dict[str, Any]]

    @property
    def split(self) -> TimeSplit:
        return TimeSplit.of(AS_OF, self.settings.split)

    def bundle(
        self,
        *,
        knows_what_follows: bool = True,
        cutoff: datetime | None = None,
        change: Callable[[Scorer], None] = lambda _: None,
        named: str = "",
        **changes: Any,
    ) -> ArtifactRef:
        """A bundle by the project's own writer; `changes` replace an input's reference, None leaves it out.

        `change` spoils the scorer, and `named` tells the spoilt bundle from others.
        """
        given = {"clean": self.clean, "features": self.features, "graph": self.graph} | changes
        inputs = {kind: ref for kind, ref in given.items() if ref is not None}

        def run(context: StepContext) -> StepReport:
            attributes = ItemAttributes.from_columns(
                {"category": [category(i) for i in range(NUM_ITEMS)]},
                num_items=NUM_ITEMS,
                affinity_names=["category"],
            )
            scorer = planted_scorer(
                attributes,
                knows_what_follows=knows_what_follows,
                users_I=self.users_before(self.split.cutoff),
                scaling=self.scaling(),
            )
            change(scorer)
            write_bundle(
                context.output,
                items=pa.table(
                    {
                        "item_id": [item_id(i) for i in range(NUM_ITEMS)],
                        "title": [title(i) for i in range(NUM_ITEMS)],
                        "price": pa.array([1.0] * NUM_ITEMS),
                        "price_band": ["b"] * NUM_ITEMS,
                        "attribute:category": [category(i) for i in range(NUM_ITEMS)],
                    }
                ),
                attributes=attributes,
                scorer=scorer,
                cutoff=cutoff or self.split.cutoff,
                facts={
                    "settings": {
                        "split": self.settings.split.model_dump(),
                        "graph": self.settings.graph.model_dump(mode="json"),
                    }
                },
            )
            # Items that follow stand beside themselves alone: a vector in another's place is not at home.
            at_home = pa.array(range(NUM_KEYS, 2 * NUM_KEYS), pa.int32())
            neighbours = {"relation": ["itself"] * NUM_KEYS, "item": at_home, "neighbour": at_home}
            context.output.write_table("neighbours.parquet", pa.table({**neighbours, "weight": [1.0] * NUM_KEYS}))
            return StepReport(summary="planted | bundle", rows=NUM_ITEMS, statistics={"epochs": 3})

        name = f"{knows_what_follows} {cutoff} {named} {sorted(changes.items())}"
        return made("train", "bundle", self.settings, run, inputs=inputs, fingerprint=name).ref

    def users_before(self, moment: datetime) -> torch.Tensor:
        """(I,) different buyers of each item."""
        bought = [row for row in self.events if row["event_type"] == "purchase" and row["timestamp"] < moment]
        pairs = {(row["user_id"], row["item_id"]) for row in bought}
        counts = Counter(item for _, item in pairs)
        return torch.tensor([float(counts[item_id(i)]) for i in range(NUM_ITEMS)])

    def scaling(self) -> StatisticsScaling:
        """Of the users of the first training window, as training fits it."""
        window = self.split.training[0]
        users_I = self.users_before(self.split.cutoff)
        warm = {item_id(i) for i in range(NUM_ITEMS) if users_I[i] >= self.settings.graph.min_item_users}
        takers = {
            row["user_id"]
            for row in self.events
            if window.start <= row["timestamp"] < window.end and row["item_id"] in warm
        }
        table = Artifact.open(Store(self.settings.artifact_root), self.features.uri).table("user_statistics.parquet")
        rows = [row for row in table.to_pylist() if row["event_timestamp"] == window.start and row["user_id"] in takers]
        nan = float("nan")
        values = [[nan if row[name] is None else float(row[name]) for name in STATISTICS] for row in rows]
        return StatisticsScaling.fit(STATISTICS, torch.tensor(values).reshape(-1, len(STATISTICS)))

    def crown(self, bundle: ArtifactRef) -> None:
        """Let the pointer say that this bundle serves."""
        move_pointer(Store(self.settings.artifact_root), bundle, previous=None, run_id="test")

    @contextmanager
    def champion(self, bundle: ArtifactRef) -> Iterator[None]:
        """This bundle serves for a while."""
        self.crown(bundle)
        try:
            yield
        finally:
            restore_pointer(Store(self.settings.artifact_root), None)

    def evaluate(self, bundle: ArtifactRef, **evaluate: Any) -> Execution:
        # What follows is planted, and so too good to be true.
        evaluate = {"max_baseline_ratio": 1000.0, **evaluate}
        settings = self.settings.model_copy(update={"evaluate": self.settings.evaluate.model_copy(update=evaluate)})
        inputs = {"clean": self.clean, "features": self.features, "bundle": bundle}
        return execute(STEP, settings=settings, inputs=inputs, run_id="test", as_of=AS_OF)

    def folder(self, manifest: Manifest) -> Path:
        return Path(manifest.uri)


def made(
    name: str,
    kind: str,
    settings: Settings,
    run: Callable[[StepContext], StepReport],
    *,
    inputs: Mapping[str, ArtifactRef],
    fingerprint: str = "",
) -> Execution:
    """A committed artifact of a hand-made step."""

    step = Step(
        name=name,
        kind=kind,
        inputs=tuple(inputs),
        sections=(),
        rooms=("components.core",),
        run=run,
        fingerprint=lambda _: fingerprint,
    )
    return execute(step, settings=settings, inputs=inputs, run_id="test", as_of=AS_OF)


def item_id(item: int) -> str:
    return f"item-{item:03d}"


def title(item: int) -> str | None:
    # Half of the items that follow, and so stand in lists, carry markup.
    return SCRIPT if NUM_KEYS <= item < 1.5 * NUM_KEYS else None if item % 7 == 3 else f"Thing {item}"


def category(item: int) -> str:
    return CATEGORIES[item % len(CATEGORIES)]


def planted_scorer(
    attributes: ItemAttributes, *, knows_what_follows: bool, users_I: torch.Tensor, scaling: StatisticsScaling
) -> Scorer:
    history_ID = torch.zeros(NUM_ITEMS, NUM_KEYS)
    target_ID = torch.zeros(NUM_ITEMS, NUM_KEYS)
    history_ID[:NUM_KEYS] = torch.eye(NUM_KEYS)
    shift = 0 if knows_what_follows else 7
    target_ID[NUM_KEYS : 2 * NUM_KEYS] = torch.eye(NUM_KEYS).roll(shift, dims=0)
    user_vector = UserVector(num_items=NUM_ITEMS, dim=NUM_KEYS, num_statistics=2, half_life_days=None)
    user_vector.start(torch.Generator().manual_seed(0))
    return Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=user_vector,
        scaling=scaling,
        temperature=0.1,
        counted=CountedTerms(
            filter_rows=FilterRows.from_scipy(sp.csr_matrix((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)),
            attributes=attributes,
            popularity=Popularity(users_I, users_I),
            half_life_days=56,
        ),
        weights=ScoreWeights(
            terms={"similarity": 1.0, "affinity_category": 0.1, "popularity": 0.01}, repeat=1.0, repeat_scale=0.5
        ),
    )


def planted_events() -> list[dict[str, Any]]:
    """Before the cutoff a user's own item again and again, and others' by chance; after it, what follows it."""
    generator = np.random.default_rng(5)
    cutoff = TimeSplit.of(AS_OF, load_settings().split).cutoff
    rows = []
    for user in range(NUM_USERS):
        key = user % NUM_KEYS
        others = generator.integers(2 * NUM_KEYS, NUM_ITEMS, 8)
        before = [key, key, key, *others[:6]]
        rows += [(user, item, cutoff - timedelta(days=float(generator.uniform(0.1, 90)))) for item in before]
        after = [key, NUM_KEYS + key, *others[6:]]
        rows += [(user, item, cutoff + timedelta(days=float(generator.uniform(0.1, 27)))) for item in after]
    return [
        {
            "event_id": f"e{n}",
            "user_id": f"user-{user:04d}",
            "item_id": item_id(item),
            "event_type": "purchase",
            "timestamp": at,
            "session_id": None,
            "quantity": 1.0,
            "price": 1.0,
        }
        for n, (user, item, at) in enumerate(rows)
    ]


def make_world(home: Path, events: list[dict[str, Any]]) -> World:
    settings = load_settings(home=home)
    split = TimeSplit.of(AS_OF, settings.split)

    def clean(context: StepContext) -> StepReport:
        days: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for row in events:
            days[row["timestamp"].date()].append(row)
        table = DayTable(context.store, "clean_events")
        for day, rows in sorted(days.items()):
            context.output.partitions.append(table.write_day(day, pa.Table.from_pylist(rows, schema=EVENTS)))
        items = [dict.fromkeys(CATALOG.names) | {"item_id": item_id(i), "title": title(i)} for i in range(NUM_ITEMS)]
        context.output.write_table("catalog.parquet", pa.Table.from_pylist(items, schema=CATALOG))
        return StepReport(summary="clean", rows=len(events))

    def features(context: StepContext) -> StepReport:
        artifact = context.inputs["clean"]
        with Snapshots(
            event_files=artifact.partition_paths(),
            catalog_file=artifact.path("catalog.parquet"),
            moments=split.snapshot_times,
            recent_window=split.window,
            settings=settings.features,
        ) as snapshots:
            context.output.write_table("user_history.parquet", snapshots.user_history())
            context.output.write_table("user_statistics.parquet", snapshots.user_statistics())
        return StepReport(summary="features", rows=1)

    def graph(context: StepContext) -> StepReport:
        context.output.path("nodes.json").write_text("{}")
        return StepReport(summary="graph", rows=NUM_ITEMS)

    clean_ref = made("validate", "clean", settings, clean, inputs={}).ref
    return World(
        settings=settings,
        clean=clean_ref,
        features=made("features", "features", settings, features, inputs={"clean": clean_ref}).ref,
        graph=made("graph", "graph", settings, graph, inputs={"clean": clean_ref}).ref,
        events=events,
    )
