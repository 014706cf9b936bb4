"""The monitor's inputs, found by lineage: what the live bundle was made of, and the days of the log since then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core.artifact import Artifact, ArtifactRef, Partition
from components.core.clock import midnight
from components.core.errors import ArtifactError
from components.core.live import read_pointer
from components.core.schemas import EVENTS, TIMESTAMP
from components.core.sections import SplitSettings
from components.core.step import latest
from components.core.store import Store
from components.model.bundle import Bundle
from components.monitor.holdings import GraphEdges
from components.monitor.lens import REMEMBERED_USERS, Ints, Lens, make_lens, positions
from components.monitor.tally import COLUMNS, Bins, Tally, cut_bins, days_between, tally_day
from components.monitor.windows import WEEK


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What the bundle was trained on."""

    clean: Artifact
    features: Artifact
    graph: Artifact

    @classmethod
    def of(cls, store: Store, bundle: Artifact) -> Lineage:
        made_of = {ref.kind: ref for ref in bundle.manifest.inputs}
        missing = {"clean", "features", "graph"} - set(made_of)
        if missing:
            raise ArtifactError(
                f"The bundle {bundle.manifest.uri} does not name its {', '.join(sorted(missing))}. Train it again."
            )
        return cls(
            **{
                kind: Artifact.open(store, made_of[kind].uri, sha256=made_of[kind].sha256, kind=kind)
                for kind in ("clean", "features", "graph")
            }
        )


def serving_bundle(store: Store) -> ArtifactRef:
    """The bundle that serves; before the first deploy, the one made last."""
    pointer = read_pointer(store)
    return pointer.bundle if pointer is not None else latest(store, "bundle")


def load_bundle(artifact: Artifact) -> Bundle:
    """Every file checked, a remote one copied for the time being."""
    with TemporaryDirectory(prefix="basketweave-monitor-") as folder:
        return Bundle.load(artifact.local_folder(Path(folder)))


def training_days(bundle: Bundle) -> tuple[date, date]:
    """First day and end of what the bundle learnt from: its target windows and the one before them."""
    split = SplitSettings.model_validate(bundle.facts["settings"]["split"])
    end = bundle.cutoff.date()
    return end - timedelta(days=split.window_days * (split.training_windows + 1)), end


def window_days(bundle: Bundle, as_of: datetime, *, most: int) -> list[date]:
    """The whole days from the cutoff to `as_of`, the newest `most` of them."""
    first = bundle.cutoff.date()
    if midnight(first) < bundle.cutoff:
        first += timedelta(days=1)
    return days_between(first, as_of.date())[-most:]


class DayReader:
    """Tallies of days, those that an earlier run made taken from it."""

    def __init__(self, store: Store, lens: Lens, bins: Bins, known: dict[str, Tally]) -> None:
        self._store = store
        self._lens = lens
        self._bins = bins
        self.tallies = known
        """By the hash of the day's file."""
        self.used: dict[str, Tally] = {}

    def tally(self, part: Partition | None) -> Tally:
        """None: a day of which the log has nothing."""
        key = part.sha256 if part else "empty"
        if key not in self.tallies:
            table = read_day(self._store, part) if part else EVENTS.empty_table()
            self.tallies[key] = tally_day(table, self._lens, self._bins)
        self.used[key] = self.tallies[key]
        return self.tallies[key]


def read_day(store: Store, part: Partition) -> pa.Table:
    return pq.read_table(store.fetch(part.path, sha256=part.sha256), columns=COLUMNS)


def reference_parts(lineage: Lineage, bundle: Bundle) -> list[Partition]:
    """The bundle's own training days, oldest first; at least two weeks of them."""
    first, end = training_days(bundle)
    parts = sorted((part for part in lineage.clean.manifest.partitions if first <= part.day < end), key=_day)
    if len(parts) < 2 * WEEK:
        raise ArtifactError(
            f"The bundle was trained on {len(parts)} days; drift is measured against {2 * WEEK} or more. "
            "Set split.window_days and split.training_windows higher and train again."
        )
    return parts


def reference_bins(store: Store, parts: Sequence[Partition], lens: Lens) -> Bins:
    return cut_bins((read_day(store, part) for part in parts), lens)


def bundle_lens(bundle: Bundle, edges: GraphEdges, features: Artifact) -> Lens:
    """The bundle's items, its graph's behaviour edges, and its users as the features knew them at the cutoff."""
    items = bundle.items
    item_ids = pa.array(items.item_ids, pa.string())
    in_bundle = positions(edges.item_ids, item_ids)
    sources, targets = in_bundle[edges.sources], in_bundle[edges.targets]
    known = (sources >= 0) & (targets >= 0)
    users, tastes, seen = _users(features, bundle.cutoff, item_ids)
    return make_lens(
        item_ids=items.item_ids,
        categories=items.categories,
        users_of_item=items.popularity,
        prices=items.prices,
        edges=(sources[known], targets[known]),
        user_ids=users,
        tastes=tastes,
        seen=seen,
    )


def _users(
    features: Artifact, moment: datetime, item_ids: pa.StringArray
) -> tuple[list[str], tuple[Ints, list[str | None], np.ndarray], tuple[Ints, Ints]]:
    at = pc.field("event_timestamp") == pa.scalar(moment, TIMESTAMP)
    statistics = pq.read_table(
        features.path("user_statistics.parquet"),
        columns=["user_id", "top_categories", "top_category_shares"],
        filters=at,
    )
    history = pq.read_table(features.path("user_history.parquet"), columns=["user_id", "history_items"], filters=at)
    everybody = sorted(history["user_id"].to_pylist())
    users = everybody[:: max(1, -(-len(everybody) // REMEMBERED_USERS))]  # spread over all ids, the same in every run
    ids = pa.array(users, pa.string())
    taste_user, names = _flat(statistics, "top_categories", ids)
    _, shares = _flat(statistics, "top_category_shares", ids)
    seen_user, seen_items = _flat(history, "history_items", ids)
    item = positions(seen_items, item_ids)
    return (
        users,
        (taste_user, names.to_pylist(), shares.to_numpy(zero_copy_only=False).astype(np.float64)),
        (seen_user[item >= 0], item[item >= 0]),
    )


def _flat(table: pa.Table, column: str, user_ids: pa.StringArray) -> tuple[Ints, pa.Array]:
    """A list column of the users in `user_ids` as (position of the user, value) pairs."""
    user = positions(table["user_id"], user_ids)
    lists = table[column].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    row = np.repeat(user, lengths)
    return row[row >= 0], lists.flatten().filter(pa.array(row >= 0))


def _day(part: Partition) -> date:
    return part.day
