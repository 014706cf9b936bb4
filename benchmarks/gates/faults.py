"""Faults to plant, and who must notice each. A draw is one fault, drawn anew, before one drawing of users."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from benchmarks.gates.ground import Ground, misplaced
from components.core.artifact import Artifact
from components.core.schemas import TIMESTAMP
from components.core.step import Step, StepContext, StepReport, execute
from components.core.store import Store
from components.evaluate.gates import Judgement
from components.evaluate.lineage import Check, check_lineage
from components.evaluate.recount import (
    GRAPH_FRESH,
    HISTORIES,
    POPULARITY,
    SKEW,
    TRAINING_SKEW,
    distinct_users,
    recount,
)
from components.features.snapshots import Snapshots
from components.inputs.users import read_histories
from components.measures.ranking import Ranked, list_metrics
from components.measures.slices import STRATA, item_strata
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.score import Scorer, ScoreWeights

SHUFFLED_SHARE = 0.05
# Of a user's hold-out, when all of it came into training.
LEAKED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Caught:
    """One draw: the verdict, and the gates and checks that stood in the way."""

    verdict: str
    failed: tuple[str, ...]
    recall_change: float | None = None
    """Of the whole, relative to the champion's."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    name: str
    detectors: tuple[str, ...]
    """Names of the checks and gates that must notice; one of them is enough where they look from two sides."""
    draw: Callable[[Ground, np.random.Generator], Caught]


class BentScorer(Scorer):
    """A scorer whose scores are changed at the end."""

    def __init__(self, of: Scorer, bend: Callable[[Tensor], Tensor]) -> None:
        self.__dict__.update(of.__dict__)
        # New items alone are judged: without a repeat scale they are ranked by `score`, which is what is bent.
        self.weights = ScoreWeights(terms=of.weights.terms, repeat_scale=0.0)
        self._of = of
        self._bend = bend

    def score(self, histories: Histories, statistics_BF: Tensor, *, include_seen: bool = False) -> Tensor:
        return self._bend(self._of.score(histories, statistics_BF, include_seen=include_seen))


def shuffled_vectors(ground: Ground, generator: np.random.Generator) -> Caught:
    place, champion = _two_bundles(ground, generator)
    scorer = ground.bundles[place].scorer
    rows = generator.choice(scorer.num_items, round(SHUFFLED_SHARE * scorer.num_items), replace=False)
    target_ID, history_ID = scorer.target_ID.clone(), scorer.history_ID.clone()
    other = torch.from_numpy(np.roll(rows, 1))
    target_ID[rows], history_ID[rows] = scorer.target_ID[other], scorer.history_ID[other]
    spoilt = Scorer(
        history_ID=history_ID,
        target_ID=target_ID,
        user_vector=scorer.user_vector,
        scaling=scorer.scaling,
        temperature=scorer.temperature,
        counted=scorer.counted,
        weights=scorer.weights,
    )
    excess = misplaced(ground.refs[place].uri, spoilt) - misplaced(
        ground.refs[champion].uri, ground.bundles[champion].scorer
    )
    return _judged(ground, generator, ground.rank(spoilt), ground.lists[champion], misplaced=excess)


def popularity_collapse(ground: Ground, generator: np.random.Generator) -> Caught:
    """Of what makes the lists, popularity has become nearly all."""
    place, champion = _two_bundles(ground, generator)
    scorer = ground.bundles[place].scorer
    popular_I = torch.log1p(scorer.counted.popularity.ever_I) * float(generator.uniform(5, 20))
    return _judged(ground, generator, ground.rank(BentScorer(scorer, lambda s: s + popular_I)), ground.lists[champion])


def ruined_tail(ground: Ground, generator: np.random.Generator) -> Caught:
    """The tail is never listed, and so much better found is all the rest that the mean recall is the champion's."""
    place, champion = _two_bundles(ground, generator)
    is_tail_I = item_strata(ground.known.popularity) == STRATA.index("tail")
    malus_I = torch.from_numpy(np.where(is_tail_I, -1e3, 0.0)).float()
    bent = BentScorer(ground.bundles[place].scorer, lambda s: s + malus_I)
    lists = _lifted(ground, ground.rank(bent), ground.lists[champion], ~is_tail_I, generator)
    return _judged(ground, generator, lists, ground.lists[champion])


def leaked_holdout(ground: Ground, generator: np.random.Generator) -> Caught:
    """Half of what users then took was seen in training, by a bundle whose papers are in order: only figures tell."""
    place, champion = _two_bundles(ground, generator)
    lists = ground.lists[place].copy()
    targets = ground.contest.targets
    for row in range(len(lists)):
        taken = targets[[row]].indices
        leaked = taken[(generator.random(len(taken)) < LEAKED_SHARE) & (taken < ground.log.num_items)]
        rest = lists[row][~np.isin(lists[row], leaked)]
        lists[row] = np.concatenate([leaked, rest])[: lists.shape[1]]
    return _judged(ground, generator, lists, ground.lists[champion])


def leaked_item(ground: Ground, generator: np.random.Generator) -> Caught:
    """One item that somebody took in the hold-out, in the counts of the graph or in a history, as if before it."""
    place = int(generator.integers(len(ground.bundles)))
    bundle = ground.bundles[place]
    contest, targets = ground.contest, ground.contest.targets.tocoo()
    inside = np.flatnonzero(targets.col < ground.log.num_items)
    one = generator.choice(inside)
    row, item = int(contest.rows[targets.row[one]]), int(targets.col[one])
    if generator.random() < 0.5:
        popularity = bundle.items.popularity.copy()
        popularity[item] += 1
        return _checked(_recount(ground, _with_popularity(bundle, popularity), generator=generator))
    return _checked(_recount(ground, bundle, histories=_with_entry(ground.histories, row, item), generator=generator))


def leaked_log(ground: Ground, generator: np.random.Generator) -> Caught:
    """The same by a log in which the event stands before the cutoff: it is another log, and its hash says so."""
    place = int(generator.integers(len(ground.bundles)))
    store = Store(ground.settings.artifact_root)
    made = Artifact.open(store, ground.refs[place].uri)
    other = f"{int(generator.integers(1 << 62)):064x}"
    inputs = [ref.model_copy(update={"sha256": other}) if ref.kind == "clean" else ref for ref in made.manifest.inputs]
    spoilt = Artifact(store, made.manifest.model_copy(update={"inputs": inputs}))
    return _checked(_lineage(ground, ground.bundles[place], spoilt))


def old_graph(ground: Ground, generator: np.random.Generator) -> Caught:
    """The graph of three to six weeks ago under this day's name: counts, and all that hangs on them, are old."""
    place = int(generator.integers(len(ground.bundles)))
    bundle = ground.bundles[place]
    moment = ground.split.cutoff - timedelta(days=float(generator.uniform(21, 42)))
    paths = ground.artifacts["clean"].partition_paths()
    old_I = distinct_users(paths, moment, item_ids=bundle.items.item_ids)
    return _checked(_recount(ground, _with_popularity(bundle, old_I), generator=generator))


def shifted_features(ground: Ground, generator: np.random.Generator) -> Caught:
    """Features computed a day too early or too late, under the right day's name."""
    place = int(generator.integers(len(ground.bundles)))
    days = int(generator.choice([-1, 1]))
    features = _shifted(ground, days)
    item_ids = pa.array(ground.bundles[place].items.item_ids, pa.string())
    histories = read_histories(features, ground.split.cutoff, user_ids=ground.log.user_ids, item_ids=item_ids)
    checks = _recount(ground, ground.bundles[place], features=features, histories=histories, generator=generator)
    return _checked(checks)


FAULTS: tuple[Fault, ...] = (
    Fault(name="vectors of 5 % of items shuffled", detectors=("vectors at home",), draw=shuffled_vectors),
    Fault(name="popularity collapse", detectors=("popularity lift kept", "coverage kept"), draw=popularity_collapse),
    Fault(name="tail ruined, mean holds", detectors=("no items bought lost: tail",), draw=ruined_tail),
    Fault(name="test item leaked: lineage", detectors=("trained on this log",), draw=leaked_log),
    Fault(name="test item leaked: time", detectors=(POPULARITY, HISTORIES), draw=leaked_item),
    Fault(name="half of the hold-out leaked: ceiling", detectors=("believable beside champion",), draw=leaked_holdout),
    Fault(name="graph from last month", detectors=(GRAPH_FRESH,), draw=old_graph),
    Fault(name="features shifted by a day", detectors=(SKEW, TRAINING_SKEW), draw=shifted_features),
)


def pair_of(ground: Ground, generator: np.random.Generator) -> tuple[int, int]:
    """Two different training seeds: a challenger and a champion."""
    return _two_bundles(ground, generator)


def caught_of(judgement: Judgement, change: float | None = None) -> Caught:
    return Caught(verdict=judgement.verdict, failed=tuple(judgement.failed), recall_change=change)


def _two_bundles(ground: Ground, generator: np.random.Generator) -> tuple[int, int]:
    one, other = generator.choice(len(ground.bundles), 2, replace=False)
    return int(one), int(other)


def _judged(
    ground: Ground, generator: np.random.Generator, challenger: Ranked, champion: Ranked, **beside: float
) -> Caught:
    judgement = ground.judged(challenger, champion, generator=generator, **beside)
    kept = next(gate for gate in judgement.gates if gate.name == "recall kept")
    change = None if kept.value is None or not kept.threshold else kept.value / -kept.threshold
    return caught_of(judgement, None if change is None else change * ground.settings.evaluate.margin)


def _checked(checks: tuple[Check, ...]) -> Caught:
    """A check that does not hold rejects, whatever the figures: components/evaluate/gates.py, `judge`."""
    failed = tuple(check.name for check in checks if not check.passed)
    return Caught(verdict="reject" if failed else "promote", failed=failed)


def _recount(
    ground: Ground,
    bundle: Bundle,
    *,
    generator: np.random.Generator,
    histories: Histories | None = None,
    features: Artifact | None = None,
) -> tuple[Check, ...]:
    return recount(
        bundle,
        ground.log,
        event_files=ground.artifacts["clean"].partition_paths(),
        features=features or ground.artifacts["features"],
        histories=histories or ground.histories,
        split=ground.split,
        max_skewed_share=ground.settings.evaluate.max_skewed_share,
        seed=int(generator.integers(1 << 31)),
    )


def _lineage(ground: Ground, bundle: Bundle, made: Artifact) -> tuple[Check, ...]:
    clean, features = ground.artifacts["clean"], ground.artifacts["features"]
    return check_lineage(bundle, made, clean=clean, features=features, split=ground.split)


def _lifted(
    ground: Ground, ranked: Ranked, champion: Ranked, allowed_I: np.ndarray, generator: np.random.Generator
) -> Ranked:
    """Lists into which one more target of an allowed item is put, user by user, until the mean recall is as high."""
    targets, lists = ground.contest.targets, ranked.copy()
    lacking = float((list_metrics(champion, targets).recall - list_metrics(ranked, targets).recall).sum())
    for row in generator.permutation(len(lists)):
        if lacking <= 0:
            break
        taken = targets[[row]].indices
        missed = taken[(taken < len(allowed_I)) & ~np.isin(taken, lists[row])]
        missed = missed[allowed_I[missed]]
        if len(missed):
            was_hit = lists[row][-1] in taken
            lists[row] = np.insert(lists[row][:-1], 3, missed[0])
            lacking -= (1 - was_hit) / len(taken)
    return lists


def _with_popularity(bundle: Bundle, popularity_I: np.ndarray) -> Bundle:
    spoilt = copy.copy(bundle)
    spoilt.items = dataclasses.replace(bundle.items, popularity=popularity_I)
    return spoilt


def _with_entry(histories: Histories, user: int, item: int) -> Histories:
    """The user's history with one more item, had a day before."""
    end = int(histories.indptr[user + 1])
    indptr = histories.indptr.clone()
    indptr[user + 1 :] += 1

    def put(values_N: Tensor, value: float) -> Tensor:
        return torch.cat([values_N[:end], torch.tensor([value]).to(values_N.dtype), values_N[end:]])

    return Histories(indptr, put(histories.items, item), put(histories.weights, 1.0), put(histories.ages_days, 1.0))


def _shifted(ground: Ground, days: int) -> Artifact:
    """The features step's own tables for moments that are so many days off, under the right moments' names."""
    shift = timedelta(days=days)

    def run(context: StepContext) -> StepReport:
        clean = context.inputs["clean"]
        with Snapshots(
            event_files=clean.partition_paths(),
            catalog_file=clean.path("catalog.parquet"),
            moments=[moment + shift for moment in ground.split.snapshot_times],
            recent_window=ground.split.window,
            settings=context.settings.features,
        ) as snapshots:
            for name, table in (
                ("user_history", snapshots.user_history()),
                ("user_statistics", snapshots.user_statistics()),
            ):
                at = pc.subtract(table["event_timestamp"], pa.scalar(shift, pa.duration("us"))).cast(TIMESTAMP)
                place = table.column_names.index("event_timestamp")
                context.output.write_table(f"{name}.parquet", table.set_column(place, table.schema.field(place), at))
        return StepReport(summary=f"shifted by {days} days", rows=1)

    step = Step(
        name="features",
        kind="features",
        inputs=("clean",),
        sections=("features", "split"),
        rooms=("components.features", "benchmarks.gates"),
        run=run,
        fingerprint=lambda _: days,
    )
    clean = ground.artifacts["clean"].manifest.ref()
    made = execute(step, settings=ground.settings, inputs={"clean": clean}, run_id="shifted", as_of=ground.split.as_of)
    return Artifact.open(Store(ground.settings.artifact_root), made.ref.uri)
