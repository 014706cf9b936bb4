"""What the pipeline holds at a run beside what the live bundle was made with: graph, vectors, lists, feature store.

Read once a run, not once a window. Each function gives (now, then): the reading and what it was in training, by the
names of measures.py. A part that is not there (no earlier bundle, no online store) gives no reading, which is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from components.core.artifact import Artifact
from components.core.errors import FeatureStoreError
from components.core.split import cutoff_folder
from components.inputs.users import read_histories, read_statistics
from components.measures.drift import Floats, bin_counts, jensen_shannon, psi, quantile_edges
from components.model.bundle import Bundle
from components.model.ranking import NO_ITEM
from components.model.rules import ruled_top_k
from components.monitor.lens import Ints
from components.monitor.measures import Reading

BEHAVIOUR_RELATIONS = ("co_purchase", "co_view", "view_then_buy")
NEIGHBOURS = 10
SAMPLED_ITEMS = 300
LIST_LENGTH = 20
BINS = 10
HUBS = 0.01


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """Readings of now, and the values in training where there is one."""

    now: dict[str, Reading] = field(default_factory=dict)
    then: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """Why measures have no reading, by name."""

    def put(self, name: str, value: float, *, count: float, then: float = float("nan")) -> None:
        self.now[name] = Reading(value=value, count=count)
        self.then[name] = then

    def lack(self, names: Sequence[str], why: str) -> None:
        self.absent.update(dict.fromkeys(names, why))


@dataclass(frozen=True, kw_only=True)
class GraphEdges:
    """Behaviour edges of a graph artifact at a cutoff, as positions in its own items."""

    item_ids: pa.Array
    sources: Ints
    targets: Ints

    @classmethod
    def read(cls, graph: Artifact, cutoff: datetime) -> GraphEdges:
        path = graph.path(f"{cutoff_folder(cutoff)}/edges.parquet")
        table = pq.read_table(path, columns=["relation", "source_kind", "target_kind", "source", "target"])
        chosen = pc.and_(
            pc.is_in(table["relation"].cast(pa.string()), value_set=pa.array(BEHAVIOUR_RELATIONS)),
            pc.and_(
                pc.equal(table["source_kind"].cast(pa.string()), "item"),
                pc.equal(table["target_kind"].cast(pa.string()), "item"),
            ),
        )
        kept = table.filter(chosen)
        return cls(
            item_ids=graph.table("items.parquet")["item_id"].combine_chunks(),
            sources=kept["source"].to_numpy().astype(np.int64),
            targets=kept["target"].to_numpy().astype(np.int64),
        )


def newest_cutoff(graph: Artifact) -> datetime:
    """The last moment of which the artifact holds a graph."""
    folders = {name.partition("/")[0] for name in graph.file_names if name.startswith("cutoff=")}
    return datetime.strptime(max(folders), "cutoff=%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def look_at_catalogue(holdings: Holdings, *, item_ids: pa.Array, catalogue_ids: pa.Array) -> None:
    shared = int(pc.sum(pc.is_in(catalogue_ids, value_set=item_ids)).as_py() or 0)
    union = len(item_ids) + len(catalogue_ids) - shared
    holdings.put("catalogue_churn", 1 - shared / union if union else 0.0, count=union, then=0.0)


def look_at_graph(holdings: Holdings, *, live: GraphEdges, newest: GraphEdges) -> None:
    """Edge churn is of pairs of items, so that relations may come and go without counting twice."""
    place = pc.fill_null(pc.index_in(newest.item_ids, value_set=live.item_ids), -1).to_numpy().astype(np.int64)
    # An item that the live graph does not know gets a position of its own.
    place = np.where(place < 0, len(live.item_ids) + np.arange(len(place)), place)
    span = len(live.item_ids) + len(newest.item_ids) + 1
    old = np.unique(live.sources * span + live.targets)
    new = np.unique(place[newest.sources] * span + place[newest.targets])
    shared = len(np.intersect1d(old, new, assume_unique=True))
    union = len(old) + len(new) - shared
    holdings.put("edge_churn", 1 - shared / union if union else 0.0, count=union, then=0.0)
    degrees, before = _degrees(newest.sources, len(newest.item_ids)), _degrees(live.sources, len(live.item_ids))
    edges = quantile_edges(before[before > 0], bins=BINS)
    holdings.put(
        "degree_psi",
        psi(bin_counts(before, edges)[:-1], bin_counts(degrees, edges)[:-1]),
        count=len(degrees),
        then=0.0,
    )
    holdings.put("hub_share", _hub_share(degrees), count=float(degrees.sum()), then=_hub_share(before))


def look_at_vectors(holdings: Holdings, *, live: Bundle, before: Bundle | None, seed: int) -> None:
    """Overlap is a share of 1 where both bundles agree on each sampled item's nearest."""
    if before is None:
        holdings.lack(("neighbour_overlap", "norm_psi"), "no bundle served before this one")
        return
    shared = [item for item in live.items.item_ids if item in before.items.index]
    warm = [item for item in shared if live.items.popularity[live.items.index[item]] > 0] or shared
    if len(warm) <= NEIGHBOURS:
        holdings.lack(("neighbour_overlap", "norm_psi"), "the two bundles share too few items")
        return
    rows, old_rows = ([bundle.items.index[item] for item in warm] for bundle in (live, before))
    sample = np.random.default_rng(seed).permutation(len(warm))[:SAMPLED_ITEMS]
    nearest = _nearest(live.scorer.target_ID[rows].float(), sample)
    old_nearest = _nearest(before.scorer.target_ID[old_rows].float(), sample)
    overlap = [len(np.intersect1d(one, other)) / NEIGHBOURS for one, other in zip(nearest, old_nearest, strict=True)]
    holdings.put("neighbour_overlap", float(np.mean(overlap)), count=len(overlap) * NEIGHBOURS, then=1.0)
    norms, old_norms = (
        bundle.scorer.history_ID[picked].float().norm(dim=1).numpy()
        for bundle, picked in ((live, rows), (before, old_rows))
    )
    edges = quantile_edges(old_norms, bins=BINS)
    value = psi(bin_counts(old_norms, edges)[:-1], bin_counts(norms, edges)[:-1])
    holdings.put("norm_psi", value, count=len(norms), then=0.0)


def look_at_lists(
    holdings: Holdings,
    *,
    bundle: Bundle,
    features: tuple[Artifact, datetime],
    trained: tuple[Artifact, datetime],
    user_ids: pa.StringArray,
) -> None:
    """Lists that the bundle gives the sampled users with their features of now, and of the cutoff."""
    now = _list_figures(bundle, *features, user_ids=user_ids)
    then = _list_figures(bundle, *trained, user_ids=user_ids)
    if now is None:
        holdings.lack(("popularity_lift", "list_coverage", "category_calibration"), "no sampled user has a history")
        return
    for name, (value, count) in now.items():
        holdings.put(name, value, count=count, then=then[name][0] if then else float("nan"))


def look_at_user_statistics(
    holdings: Holdings, *, features: tuple[Artifact, datetime], trained: tuple[Artifact, datetime], names: Sequence[str]
) -> None:
    (newest, now), (old, then) = features, trained
    after, before = _statistics(newest, now, names), _statistics(old, then, names)
    values = [
        psi(bin_counts(before[name], edges), bin_counts(after[name], edges))
        for name in names
        if len(edges := quantile_edges(before[name], bins=BINS))
    ]
    if not values:
        holdings.lack(("user_statistics_psi",), "the users' statistics have no values")
        return
    holdings.put("user_statistics_psi", max(values), count=len(after[names[0]]), then=0.0)


def look_at_feature_store(
    holdings: Holdings,
    *,
    online: Mapping[str, tuple[datetime, Sequence[str], Mapping[str, float | None]] | None] | FeatureStoreError,
    offline: tuple[Artifact, datetime],
    as_of: datetime,
    names: Sequence[str],
) -> None:
    """`online` is what the store says of users who came in the newest window; None for one that it does not know.

    Skew is looked for among users of whom the store and the features artifact speak as of the same moment.
    """
    measures = ("fallback_share", "feature_age_days", "serving_skew")
    if isinstance(online, FeatureStoreError) or not online:
        holdings.lack(measures, str(online) if online else "nobody came in the newest window")
        return
    known = {user: one for user, one in online.items() if one is not None}
    holdings.put("fallback_share", 1 - len(known) / len(online), count=len(online), then=0.0)
    if not known:
        holdings.lack(measures[1:], "the online store knows none of those who came last")
        return
    ages = [(as_of - moment) / timedelta(days=1) for moment, _, _ in known.values()]
    holdings.put("feature_age_days", float(np.median(ages)), count=len(ages), then=0.0)
    artifact, moment = offline
    rows = _offline_rows(artifact, moment, list(known), names)
    compared = {user: one for user, one in known.items() if one[0] == moment and user in rows}
    if not compared:
        holdings.lack(measures[2:], "online and offline features are of different moments")
        return
    differing = sum(not _same(one[1:], rows[user], names) for user, one in compared.items())
    holdings.put("serving_skew", differing / len(compared), count=len(compared), then=0.0)


def _degrees(sources: Ints, num_items: int) -> Floats:
    return np.bincount(sources, minlength=num_items).astype(np.float64)


def _hub_share(degrees: Floats) -> float:
    hubs = np.sort(degrees)[::-1][: max(1, round(len(degrees) * HUBS))]
    return float(hubs.sum() / degrees.sum()) if degrees.sum() else 0.0


def _nearest(vectors: torch.Tensor, sample: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(S, NEIGHBOURS) positions of the items nearest to each sampled one by cosine, without itself."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    similarity = unit[sample] @ unit.T
    similarity[torch.arange(len(sample)), torch.from_numpy(sample)] = -torch.inf
    nearest: npt.NDArray[np.int64] = similarity.topk(NEIGHBOURS, dim=1).indices.numpy()
    return nearest


def _list_figures(
    bundle: Bundle, features: Artifact, moment: datetime, *, user_ids: pa.StringArray
) -> dict[str, tuple[float, float]] | None:
    item_ids = pa.array(bundle.items.item_ids, pa.string())
    histories = read_histories(features, moment, user_ids=user_ids, item_ids=item_ids)
    statistics = read_statistics(features, moment, user_ids=user_ids, names=bundle.statistics_names)
    rows = torch.nonzero(histories.lengths > 0).flatten()
    if not len(rows):
        return None
    histories, statistics = histories.rows(rows), statistics[rows]
    # A handful of users at a time: a row is as long as the catalogue.
    lists = np.concatenate(
        [
            ruled_top_k(
                bundle.scorer.score(some := histories.rows(chunk), statistics[chunk]),
                bundle.rules,
                k=LIST_LENGTH,
                histories=some,
            )[0].numpy()
            for chunk in torch.split(torch.arange(len(rows)), 32)
        ]
    )
    popularity = bundle.items.popularity
    rank = np.searchsorted(np.sort(popularity), popularity) / len(popularity)
    _, category = np.unique(np.array([name or "" for name in bundle.items.categories]), return_inverse=True)
    num_categories = int(category.max()) + 1
    lift, calibration = [], []
    for row, ranked in enumerate(lists):
        listed = ranked[ranked != NO_ITEM]
        own = histories.items[histories.indptr[row] : histories.indptr[row + 1]].numpy()
        if not len(listed):
            continue
        lift.append(rank[listed].mean() - rank[own].mean())
        counts = [np.bincount(category[some], minlength=num_categories) for some in (own, listed)]
        calibration.append(jensen_shannon(*counts))
    listed = lists[lists != NO_ITEM]
    return {
        "popularity_lift": (float(np.mean(lift)), len(lift)),
        "list_coverage": (len(np.unique(listed)) / max(1, len(listed)), len(listed)),
        "category_calibration": (float(np.mean(calibration)), len(calibration)),
    }


def _statistics(features: Artifact, moment: datetime, names: Sequence[str]) -> dict[str, Floats]:
    table = pq.read_table(
        features.path("user_statistics.parquet"),
        columns=list(names),
        filters=pc.field("event_timestamp") == pa.scalar(moment, pa.timestamp("us", tz="UTC")),
    )
    return {name: pc.fill_null(table[name].cast(pa.float64()), float("nan")).to_numpy() for name in names}


def _offline_rows(
    features: Artifact, moment: datetime, users: list[str], names: Sequence[str]
) -> dict[str, tuple[Sequence[str], Mapping[str, float | None]]]:
    at = pc.field("event_timestamp") == pa.scalar(moment, pa.timestamp("us", tz="UTC"))
    mine = at & pc.field("user_id").isin(users)
    told = pq.read_table(
        features.path("user_statistics.parquet"), columns=["user_id", *names], filters=mine
    ).to_pylist()
    statistics = {row["user_id"]: row for row in told}
    history = pq.read_table(
        features.path("user_history.parquet"), columns=["user_id", "history_items"], filters=mine
    ).to_pylist()
    return {
        row["user_id"]: (row["history_items"] or [], statistics[row["user_id"]])
        for row in history
        if row["user_id"] in statistics
    }


def _same(
    online: tuple[Sequence[str], Mapping[str, float | None]],
    offline: tuple[Sequence[str], Mapping[str, float | None]],
    names: Sequence[str],
) -> bool:
    if list(online[0]) != list(offline[0]):
        return False
    pairs = [(online[1].get(name), offline[1].get(name)) for name in names]
    return all(
        one is other or (one is not None and other is not None and np.isclose(one, other, rtol=1e-5, atol=1e-8))
        for one, other in pairs
    )
