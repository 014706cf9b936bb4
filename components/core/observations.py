"""What the service's workers saw of a rollout, as counters in the artifact store: the rollout DAG's only evidence.

One file a worker under `deploy/observations/<rollout>/`, replaced whole. A worker that dies leaves its last file, so
sums never fall. No user is in them: clicks are counted over groups of users by hash, which is what tells how much
people differ (see components/measures/sequential.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, ValidationError

from components.core.rollout import CLUSTERS
from components.core.store import Store

OBSERVATIONS = "deploy/observations"

# Latencies are counted in cells 10 % wide, so a quantile read from them is at most that much too high.
CELL_RATIO = 1.1
SHORTEST_SECONDS = 1e-5
# A worker tries after 0, 2, 6, 14 seconds: what it then still cannot load is no passing trouble of the store.
TRIES = 4


class _Counts(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ArmCounts(_Counts):
    """Counters of one arm in one stage."""

    requests: int = 0
    errors: int = 0
    """Requests in which the arm's bundle raised; the champion answered in its place."""
    empty: int = 0
    fallbacks: int = 0
    """Lists that had to do without the user's history, or without something else."""
    impressions: int = 0
    clicks: int = 0
    seconds: dict[int, int] = {}
    """Histogram: cell -> requests of one list; see `cell_of`. CPU-seconds in the stage 'shadow', seconds afterwards.
    Lists of a batch are not timed: they share one request."""
    clusters: dict[int, tuple[int, int, int]] = {}
    """Group of users -> (lists, impressions, clicks)."""

    def add(self, other: ArmCounts) -> None:
        """Sum another worker's counters into these."""
        for name in ("requests", "errors", "empty", "fallbacks", "impressions", "clicks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for cell, count in other.seconds.items():
            self.seconds[cell] = self.seconds.get(cell, 0) + count
        for cluster, (lists, impressions, clicks) in other.clusters.items():
            self.count(cluster, lists=lists, impressions=impressions, clicks=clicks)

    def count(self, cluster: int, *, lists: int = 0, impressions: int = 0, clicks: int = 0) -> None:
        before = self.clusters.get(cluster, (0, 0, 0))
        self.clusters[cluster] = (before[0] + lists, before[1] + impressions, before[2] + clicks)

    @property
    def timed(self) -> int:
        """Requests in the histogram."""
        return sum(self.seconds.values())

    def quantile_seconds(self, share: float) -> float:
        """Upper edge of the cell in which the quantile lies; NaN without a request."""
        total = self.timed
        below = 0
        for cell in sorted(self.seconds):
            below += self.seconds[cell]
            if below >= share * total:
                return upper_edge(cell)
        return math.nan

    def slower_than(self, seconds: float) -> int:
        """Requests in cells that lie wholly above `seconds`."""
        return sum(count for cell, count in self.seconds.items() if upper_edge(cell - 1) >= seconds)


class StageCounts(_Counts):
    """What was seen in one stage, such as 'canary-10'."""

    arms: dict[str, ArmCounts] = {}
    overlap_sum: float = 0.0
    """Sum over shadowed requests of the share of the champion's list that the challenger's has too."""
    shadowed: int = 0
    shed: int = 0
    """Requests that were not shadowed because the worker was busy."""

    def arm(self, name: str) -> ArmCounts:
        return self.arms.setdefault(name, ArmCounts())

    def add(self, other: StageCounts) -> None:
        for name, counts in other.arms.items():
            self.arm(name).add(counts)
        self.overlap_sum += other.overlap_sum
        self.shadowed += other.shadowed
        self.shed += other.shed

    @property
    def overlap(self) -> float:
        return self.overlap_sum / self.shadowed if self.shadowed else math.nan


class WorkerObservations(_Counts):
    """One worker's file."""

    worker: str
    holds_challenger: bool = False
    refusals: int = 0
    """How often the worker tried to load the challenger and could not."""
    refusal: str | None = None
    steps: dict[str, StageCounts] = {}


@dataclass
class Observations:
    """The sums over all workers of a rollout, those that have died among them."""

    steps: dict[str, StageCounts] = field(default_factory=dict)
    workers: int = 0
    holding: int = 0
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Why workers that do not hold the challenger could not load it, where they tried TRIES times."""

    def step(self, name: str) -> StageCounts:
        return self.steps.get(name, StageCounts())

    def together(self, names: Iterable[str]) -> StageCounts:
        """The sum over several stages."""
        total = StageCounts()
        for name in names:
            total.add(self.step(name))
        return total


def read_observations(store: Store, rollout_id: str) -> Observations:
    """Sum what the workers wrote. A file that cannot be read is left out, as its worker writes it anew."""
    total = Observations()
    refusals: dict[str, str] = {}
    for name in store.list_dir(f"{OBSERVATIONS}/{rollout_id}"):
        if name.startswith("."):
            continue  # the part of a file whose writer was killed
        try:
            seen = WorkerObservations.model_validate(store.read_json(f"{OBSERVATIONS}/{rollout_id}/{name}"))
        except (FileNotFoundError, ValueError, ValidationError):
            continue
        total.workers += 1
        total.holding += seen.holds_challenger
        if not seen.holds_challenger and seen.refusals >= TRIES and seen.refusal:
            refusals[seen.worker] = seen.refusal
        for step, counts in seen.steps.items():
            total.steps.setdefault(step, StageCounts()).add(counts)
    total.refusals = refusals
    return total


def write_observations(store: Store, rollout_id: str, seen: WorkerObservations) -> None:
    store.write_json(f"{OBSERVATIONS}/{rollout_id}/{seen.worker}.json", seen.model_dump(mode="json"))


def cell_of(seconds: float) -> int:
    """Cell n holds what takes more than the upper edge of cell n - 1; cell 0 all that is too short to measure."""
    return max(0, math.ceil(math.log(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS, CELL_RATIO) - 1e-9))


def upper_edge(cell: int) -> float:
    """Seconds; negative cells hold nothing."""
    return SHORTEST_SECONDS * CELL_RATIO**cell if cell >= 0 else 0.0


def cluster_rows(counts: ArmCounts) -> tuple[list[int], list[int], list[int]]:
    """(lists, impressions, clicks) of each of the CLUSTERS groups."""
    rows = [counts.clusters.get(cluster, (0, 0, 0)) for cluster in range(CLUSTERS)]
    lists, impressions, clicks = zip(*rows, strict=True)
    return list(lists), list(impressions), list(clicks)
