"""What the pipeline holds at a run, read from store, feature store and lineage for holdings.py, and judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.core.artifact import Artifact, Partition
from components.core.errors import ArtifactError, FeatureStoreError
from components.core.live import read_pointer
from components.core.step import StepContext, latest
from components.core.store import Store
from components.model.bundle import Bundle
from components.monitor import holdings as held
from components.monitor.measures import RUN_MEASURES, Reading
from components.monitor.reading import Lineage, load_bundle, read_day
from components.monitor.thresholds import Expectation, Judged, Limits, judge, to_scale
from feature_repo.layout import FeastHome
from feature_repo.online import OnlineFeatures
from feature_repo.stored_users import SCALAR_STATISTICS

SEED = 20_171_231
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def look(
    context: StepContext, bundle: Bundle, lineage: Lineage, edges: held.GraphEdges, *, newest: Partition | None
) -> held.Holdings:
    """Every measure of the run."""
    store, clean = context.store, context.inputs["clean"]
    holdings = held.Holdings()
    catalogue = clean.table("catalog.parquet")["item_id"].combine_chunks()
    held.look_at_catalogue(holdings, item_ids=pa.array(bundle.items.item_ids, pa.string()), catalogue_ids=catalogue)

    graph = newest_of(store, "graph") or lineage.graph
    is_same = graph.manifest.content_sha256 == lineage.graph.manifest.content_sha256
    newest_edges = edges if is_same else held.GraphEdges.read(graph, held.newest_cutoff(graph))
    held.look_at_graph(holdings, live=edges, newest=newest_edges)
    held.look_at_vectors(holdings, live=bundle, before=_bundle_before(store, bundle), seed=SEED)

    features = newest_of(store, "features") or lineage.features
    now = (features, _last_moment(features))
    trained = (lineage.features, bundle.cutoff)
    names = tuple(name for name in bundle.statistics_names if name in SCALAR_STATISTICS) or SCALAR_STATISTICS
    held.look_at_user_statistics(holdings, features=now, trained=trained, names=names)
    users = _visitors(store, newest, count=context.settings.monitor.sampled_users)
    user_ids = pa.array(users, pa.string())
    held.look_at_lists(holdings, bundle=bundle, features=now, trained=trained, user_ids=user_ids)
    held.look_at_feature_store(
        holdings, online=_online(context, users), offline=now, as_of=context.moment, names=SCALAR_STATISTICS
    )
    return holdings


def newest_of(store: Store, kind: str) -> Artifact | None:
    try:
        ref = latest(store, kind)
        return Artifact.open(store, ref.uri, sha256=ref.sha256, kind=kind)
    except ArtifactError:
        return None


def _bundle_before(store: Store, live: Bundle) -> Bundle | None:
    pointer = read_pointer(store)
    previous = pointer.previous if pointer is not None and pointer.bundle.sha256 == live.sha256 else None
    if previous is None:
        return None
    try:
        return load_bundle(Artifact.open(store, previous.uri, sha256=previous.sha256, kind="bundle"))
    except ArtifactError:
        return None  # deleted since: there is nothing to compare with


def _last_moment(features: Artifact) -> datetime:
    return max(map(datetime.fromisoformat, features.manifest.statistics["moments"]))


def _visitors(store: Store, newest: Partition | None, *, count: int) -> list[str]:
    """Some of the users of the newest window, spread over their ids."""
    if newest is None:
        return []
    users = sorted(pc.unique(read_day(store, newest)["user_id"]).drop_null().to_pylist())
    return users[:: max(1, -(-len(users) // count))]


def _online(context: StepContext, users: Sequence[str]) -> Any:
    """What the online store says of them, not aged; the error where it cannot be read."""
    try:
        found = OnlineFeatures(context.settings).read_many(users, now=EPOCH) if users else []
    except FeatureStoreError as error:
        return error
    return {
        user: None if one is None else (one.event_timestamp, one.history_items, one.statistics)
        for user, one in zip(users, found, strict=True)
    }


def judge_run(
    holdings: held.Holdings, history: Sequence[Mapping[str, Any]], limits: Limits, bounds: Mapping[str, float]
) -> dict[str, Judged]:
    """Each measure of the run, by what the runs of earlier days made of it."""
    judged = {}
    for measure in RUN_MEASURES:
        if measure.name not in holdings.now:
            continue
        expectation, before = Expectation(limits), None
        then = holdings.then[measure.name]
        readings = [Reading(value=v[0], count=v[1]) for one in history if (v := one["values"].get(measure.name))]
        for reading in [*readings, holdings.now[measure.name]]:
            before = judge(
                measure,
                reading,
                expectation=expectation,
                before=before,
                reference=then,
                offset=0.0,
                limits=limits,
                bound=bounds.get(measure.name, measure.bound),
            )
            if before.cause is None and math.isfinite(reading.value):
                expectation.learn(to_scale(measure.scale, reading.value))
            else:
                expectation.skip()
        assert before is not None
        judged[measure.name] = before
    return judged


def state_outside(context: StepContext) -> Any:
    """What else it reads: the newest graph and features, the bundle before, the moment of the online features."""
    pointer = read_pointer(context.store)

    def newest(kind: str) -> str | None:
        artifact = newest_of(context.store, kind)
        return artifact.manifest.content_sha256 if artifact else None

    online = FeastHome.of(context.settings).online_moment()
    return {
        "graph": newest("graph"),
        "features": newest("features"),
        "previous": pointer.previous.sha256 if pointer and pointer.previous else None,
        "online": online.isoformat() if online else None,
    }
