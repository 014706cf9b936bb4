"""The log counted anew, beside what bundle and features say: has anything of the hold-out come in, is anything old?

A hash says that a file is what was written. These checks ask whether what was written is true of the moment that it
claims: item counts of the bundle, histories and statistics of the features, and the features that training read.
Everything is counted by other code than the code that made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.core.artifact import Artifact
from components.core.schemas import TARGET_EVENT_TYPES
from components.core.split import TimeSplit, Window
from components.evaluate.lineage import Check
from components.inputs.events import EventLog
from components.inputs.users import has_snapshot, read_histories, read_statistics
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.user_vector import StatisticsScaling

# Users whose features are counted anew, drawn at random.
SAMPLE_USERS = 2000
# Ages are kept as float32 and in days.
AGE_TOLERANCE_DAYS = 0.01
# A graph may lack this share of the counts of its moment before it is called old.
STALE_SHARE = 0.01
# Means and deviations of the logarithms of statistics, recomputed in another order of users.
SCALING_TOLERANCE = 1e-4
_DAY_US = 86_400_000_000

POPULARITY, GRAPH_FRESH = "no hold-out in popularity", "graph fresh"
HISTORIES, SKEW, TRAINING_SKEW = "no hold-out in histories", "features not skewed", "training features not skewed"


def recount(
    bundle: Bundle,
    log: EventLog,
    *,
    event_files: Sequence[Path],
    features: Artifact,
    histories: Histories,
    split: TimeSplit,
    max_skewed_share: float,
    seed: int,
) -> tuple[Check, ...]:
    """All checks, passed or not. `histories` (U) are those of the cutoff that the bundle is about to be judged with."""
    users = np.arange(log.num_users)
    if len(users) > SAMPLE_USERS:
        users = np.sort(np.random.default_rng(seed).choice(users, SAMPLE_USERS, replace=False))
    moments = [moment for moment in (split.cutoff, split.as_of) if has_snapshot(features, moment)]
    return (
        *_popularity(bundle, event_files, split.cutoff),
        _no_future_items(log, histories, split.cutoff),
        _skew(log, features, bundle, moments, users=users, most=max_skewed_share),
        _training_skew(bundle, log, features, split),
    )


def _popularity(bundle: Bundle, event_files: Sequence[Path], cutoff: datetime) -> tuple[Check, Check]:
    """The bundle's users an item against those of the log: more have come from the future, fewer are old."""
    expected_I = distinct_users(event_files, cutoff, item_ids=bundle.items.item_ids)
    found_I = bundle.items.popularity
    ahead = np.flatnonzero(found_I > expected_I)
    lacking = float(np.maximum(expected_I - found_I, 0).sum() / max(expected_I.sum(), 1))
    return (
        Check(
            name=POPULARITY,
            passed=not len(ahead),
            sentence=f"items have the users that they had at {cutoff.isoformat()}"
            if not len(ahead)
            else f"{len(ahead):,} items of the bundle have more users than the log had before {cutoff.isoformat()}: "
            "events of the hold-out came into the graph. Train again on what was known then.",
        ),
        Check(
            name=GRAPH_FRESH,
            passed=lacking <= STALE_SHARE,
            sentence=f"the graph counts users until {cutoff.isoformat()}"
            if lacking <= STALE_SHARE
            else f"the bundle's graph lacks {lacking:.1%} of the users that items had at {cutoff.isoformat()}: it is "
            "of an earlier day. Build the graph again, then train again.",
        ),
    )


def distinct_users(event_files: Sequence[Path], cutoff: datetime, *, item_ids: Sequence[str]) -> np.ndarray:
    """(I,) actors with a target event before the cutoff; an anonymous session is an actor."""
    with duckdb.connect() as database:
        database.execute("SET autoinstall_known_extensions = false")
        database.read_parquet([str(path) for path in event_files]).create_view("log")
        counted: pa.Table = database.sql(
            """
            SELECT item_id, count(DISTINCT coalesce('user ' || user_id, 'session ' || session_id, '')) AS users
            FROM log WHERE timestamp < $cutoff AND list_contains($targets, event_type) GROUP BY item_id
            """,
            params={"cutoff": cutoff, "targets": list(TARGET_EVENT_TYPES)},
        ).to_arrow_table()
    place = pc.index_in(pa.array(item_ids, pa.string()), value_set=counted["item_id"].combine_chunks())
    users = pc.fill_null(counted["users"].combine_chunks().take(place), 0)
    return np.asarray(users.to_numpy(zero_copy_only=False), dtype=np.int64)


def _no_future_items(log: EventLog, histories: Histories, cutoff: datetime) -> Check:
    """Of all users: an item in a history that the log does not have before the cutoff."""
    width = log.num_items + log.num_unknown_items
    before = log.time_us_E < _microseconds(cutoff)
    known = np.unique(log.user_E[before] * width + log.item_E[before])
    listed = histories.user_of_entry.numpy() * width + histories.items.numpy()
    place = np.searchsorted(known, listed).clip(max=max(len(known) - 1, 0))
    foreign = listed if not len(known) else listed[known[place] != listed]
    users = len(np.unique(foreign // width))
    return Check(
        name=HISTORIES,
        passed=not users,
        sentence=f"histories hold what users had before {cutoff.isoformat()}"
        if not users
        else f"the histories of {users:,} users hold items that they had not had before {cutoff.isoformat()}: events "
        "of the hold-out came into the features. Compute them again.",
    )


def _skew(
    log: EventLog,
    features: Artifact,
    bundle: Bundle,
    moments: Sequence[datetime],
    *,
    users: np.ndarray,
    most: float,
) -> Check:
    """Of a sample of users, how many have a history or a recency that is not the log's at that moment."""
    item_ids = pa.array(bundle.items.item_ids, pa.string())
    user_ids = log.user_ids.take(pa.array(users))
    shares = {
        moment: float(_deviating(log, features, moment, users=users, user_ids=user_ids, item_ids=item_ids).mean())
        for moment in moments
    }
    skewed = {moment: share for moment, share in shares.items() if not share <= most}
    if skewed:
        moment, share = max(skewed.items(), key=lambda pair: pair[1])
        sentence = (
            f"{share:.1%} of the users' features as of {moment.isoformat()} are not those of the log at that moment: "
            "they are of another time. Compute features again, then train again."
        )
        return Check(name=SKEW, passed=False, sentence=sentence)
    worst = max(shares.values(), default=0.0)
    return Check(
        name=SKEW,
        passed=True,
        sentence=f"features are those of the log for all but {worst:.1%} of {len(users):,} users, counted anew",
    )


def _deviating(
    log: EventLog,
    features: Artifact,
    moment: datetime,
    *,
    users: np.ndarray,
    user_ids: pa.StringArray,
    item_ids: pa.StringArray,
) -> np.ndarray:
    """(S,) whether a user's history or recency at the moment differs from the log's."""
    truth = _Truth.of(log, moment, users=users)
    found = read_histories(features, moment, user_ids=user_ids, item_ids=item_ids)
    width = log.num_items
    listed = found.user_of_entry.numpy() * width + found.items.numpy()
    place = np.searchsorted(truth.key_N, listed).clip(max=max(len(truth.key_N) - 1, 0))
    if len(truth.key_N):
        agrees = truth.key_N[place] == listed
        agrees &= np.abs(truth.age_days_N[place] - found.ages_days.numpy()) <= AGE_TOLERANCE_DAYS
    else:
        agrees = np.zeros(len(listed), dtype=bool)
    wrong = np.bincount(found.user_of_entry.numpy()[~agrees], minlength=len(users)) > 0
    # Features keep the latest items of a user up to a length; who has as many may lack some.
    lengths = found.lengths.numpy()
    expected = np.bincount(truth.key_N // width, minlength=len(users))
    wrong |= (lengths < expected) & (lengths < lengths.max(initial=0))
    recency = read_statistics(features, moment, user_ids=user_ids, names=["recency_days"]).numpy()[:, 0]
    late = np.isnan(recency) != np.isnan(truth.recency_days_S)
    late |= np.abs(np.nan_to_num(recency) - np.nan_to_num(truth.recency_days_S)) > AGE_TOLERANCE_DAYS
    return np.asarray(wrong | late)


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """What the log says of S users at a moment; `key_N` is user * I + item, sorted."""

    key_N: np.ndarray
    age_days_N: np.ndarray
    recency_days_S: np.ndarray

    @classmethod
    def of(cls, log: EventLog, moment: datetime, *, users: np.ndarray) -> _Truth:
        at_us = _microseconds(moment)
        place_of = np.full(log.num_users, -1)
        place_of[users] = np.arange(len(users))
        chosen = (log.time_us_E < at_us) & (place_of[log.user_E] >= 0)
        user, item, time_us = place_of[log.user_E[chosen]], log.item_E[chosen], log.time_us_E[chosen]
        recency = np.full(len(users), -np.inf)
        # Where nobody buys, other events are the targets, and recency is unknown.
        if log.target_types == TARGET_EVENT_TYPES:
            is_target = log.is_target_E[chosen]
            np.maximum.at(recency, user[is_target], time_us[is_target])
        known = item < log.num_items
        key, inverse = np.unique(user[known] * log.num_items + item[known], return_inverse=True)
        last = np.zeros(len(key), dtype=np.int64)
        np.maximum.at(last, inverse, time_us[known])
        return cls(
            key_N=key,
            age_days_N=(at_us - last) / _DAY_US,
            recency_days_S=np.where(np.isinf(recency), np.nan, (at_us - recency) / _DAY_US),
        )


def _training_skew(bundle: Bundle, log: EventLog, features: Artifact, split: TimeSplit) -> Check:
    """The scaling that training fitted on its first window's users, against the same users in the snapshot."""
    said = bundle.facts.get("settings", {})
    try:
        windows, min_users = said["split"]["training_windows"], said["graph"]["min_item_users"]
    except KeyError:
        sentence = "The bundle does not say how its training cut time, so its features cannot be checked. Train again."
        return Check(name=TRAINING_SKEW, passed=False, sentence=sentence)
    start = split.validation.start - split.window * windows
    taken = log.targets_in(Window(start=start, end=start + split.window))
    warm = np.zeros(taken.shape[1], dtype=np.float32)
    warm[: log.num_items] = bundle.items.popularity >= min_users
    users = np.flatnonzero(taken @ warm)
    scaling = bundle.scorer.scaling
    statistics = read_statistics(
        features, start, user_ids=log.user_ids.take(pa.array(users)), names=bundle.statistics_names
    )
    served = StatisticsScaling.fit(scaling.names, statistics)
    gaps = [abs(then - now) for then, now in zip(scaling.means, served.means, strict=True)]
    gaps += [abs(then - now) for then, now in zip(scaling.deviations, served.deviations, strict=True)]
    widest = int(np.argmax(np.nan_to_num(gaps, nan=np.inf))) if gaps else 0
    if gaps and not gaps[widest] <= SCALING_TOLERANCE:
        name = scaling.names[widest % len(scaling.names)]
        sentence = (
            f"Training read another '{name}' as of {start.isoformat()} than the features hold (they differ by "
            f"{gaps[widest]:.3g} in the logarithm). Train again on these features."
        )
        return Check(name=TRAINING_SKEW, passed=False, sentence=sentence)
    return Check(
        name=TRAINING_SKEW,
        passed=True,
        sentence=f"training read the features that are served, {len(users):,} users as of {start.isoformat()}",
    )


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
