"""A simulated shop, the recipe trained on it under several seeds, and every entrant's lists: what all trials draw from.

The pipeline's own steps make it; the evaluation's own code ranks. Ranking is done once a bundle: a trial then judges
the lists of two bundles over users drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from components.core.artifact import Artifact, ArtifactRef
from components.core.command import load_step
from components.core.settings import Settings, load_settings
from components.core.split import TimeSplit
from components.core.step import execute
from components.core.store import Store
from components.evaluate.contest import CHAMPION, MODEL, NEW_ITEMS, BaselineEntrant, ModelEntrant, NewItems, rank_users
from components.evaluate.gates import Judgement, judge
from components.evaluate.measuring import score_new_items
from components.evaluate.parts import ItemFacts
from components.evaluate.rules import Opponent
from components.evaluate.scorecard import Scorecard
from components.evaluate.tuning import choose_baselines, new_targets
from components.evaluate.vectors import misplaced_in
from components.inputs.events import EventLog, read_events
from components.inputs.users import read_histories, read_statistics
from components.measures.interactions import Interactions
from components.measures.ranking import Ranked
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.score import Scorer
from components.simulate.settings import WorldSettings
from components.simulate.writer import simulate

BEFORE = ("ingest", "validate", "features", "graph")
SEED = 20_171_231


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What every trial draws from."""

    settings: Settings
    split: TimeSplit
    artifacts: Mapping[str, Artifact]
    bundles: Sequence[Bundle]  # one a training seed
    refs: Sequence[ArtifactRef]
    log: EventLog
    known: Interactions
    histories: Histories
    statistics: Tensor
    contest: NewItems  # with the baselines' lists alone
    lists: Sequence[Ranked]  # one a bundle

    def rank(self, scorer: Scorer) -> Ranked:
        """(R, k): the lists of new items that a scorer gives to the contest's users."""
        entrant = ModelEntrant(scorer, histories=self.histories, statistics=self.statistics)
        k = self.settings.evaluate.cutoff_k
        lists = rank_users(
            [entrant],
            rows=self.contest.rows,
            seen=self.known.seen,
            k=k,
            track=no_bar,
            settings=(NEW_ITEMS,),
            rules=self.bundles[0].rules,
        )
        return lists[NEW_ITEMS][MODEL]

    def judged(
        self, challenger: Ranked, champion: Ranked, *, generator: np.random.Generator, **beside: float
    ) -> Judgement:
        """One trial: both over as many users as there are, drawn with replacement."""
        lists = {**self.contest.lists, MODEL: challenger, CHAMPION: champion}
        whole = NewItems(
            rows=self.contest.rows,
            targets=self.contest.targets,
            lists=lists,
            known=self.known,
            items=self.contest.items,
        )
        drawn = whole.drawn(generator.integers(len(whole.rows), size=len(whole.rows)))
        settings = self.settings.evaluate
        result, slices, comparison = score_new_items(drawn, champion_sha256="0" * 64, settings=settings)
        card = Scorecard(
            k=settings.cutoff_k,
            confidence=settings.confidence,
            resamples=settings.bootstrap_resamples,
            unknown_target_share=0.0,
            fallback_share=0.0,
            settings={NEW_ITEMS: result},
            slices=slices,
            comparison=comparison,
        )
        # What a clock or the disk says does not come from users: two bundles of one recipe are alike in it.
        figures = {"size": 1.0, "latency": 1.0, "misplaced": 0.0, **beside}
        return judge((), card, settings, opponent=Opponent(state="comparable", sentence="", beside=figures))


def make_ground(
    home: Path, world: WorldSettings, *, seeds: Sequence[int], dim: int, resamples: int, progress: Any
) -> Ground:
    """Simulate, run the steps once, train once a seed, rank."""
    simulate(world, home / "log")
    settings = load_settings(
        home=home / "home",
        source={
            "profile": "contract",
            "events": f"{home}/log/events/*.parquet",
            "catalog": f"{home}/log/catalog.parquet",
        },
        train={"embedding_dim": dim},
        evaluate={"bootstrap_resamples": resamples},
    )
    refs: dict[str, ArtifactRef] = {}
    for name in BEFORE:
        progress(name)
        step = load_step(name)
        inputs = {kind: refs[kind] for kind in step.inputs}
        refs[step.kind] = execute(step, settings=settings, inputs=inputs, run_id="gates", as_of=world.as_of).ref
    trained = [_train(settings, refs, seed, progress) for seed in seeds]
    store = Store(settings.artifact_root)
    artifacts = {kind: Artifact.open(store, ref.uri) for kind, ref in refs.items()}
    bundles = [Bundle.load(Path(ref.uri)) for ref in trained]
    progress("rank")
    return _ground(settings, artifacts, bundles, trained, TimeSplit.of(world.as_of, settings.split))


def misplaced(bundle_uri: str, scorer: Scorer) -> float:
    """Share of the scorer's items that are not at home in the bundle's graph."""
    return misplaced_in(Path(bundle_uri), scorer.target_ID.numpy(), seed=SEED)


def no_bar(items: Iterable[Any], _: int) -> Iterable[Any]:
    return items


def _train(settings: Settings, refs: Mapping[str, ArtifactRef], seed: int, progress: Any) -> ArtifactRef:
    progress(f"train, seed {seed}")
    step = load_step("train")
    seeded = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": seed})})
    inputs = {kind: refs[kind] for kind in step.inputs}
    return execute(step, settings=seeded, inputs=inputs, run_id=f"seed-{seed}").ref


def _ground(
    settings: Settings,
    artifacts: Mapping[str, Artifact],
    bundles: Sequence[Bundle],
    refs: Sequence[ArtifactRef],
    split: TimeSplit,
) -> Ground:
    first = bundles[0]
    item_ids = pa.array(first.items.item_ids, pa.string())
    items = ItemFacts.of(first.items.categories, first.items.prices)
    log = read_events(artifacts["clean"].partition_paths(), item_ids=item_ids, track=lambda paths: paths)
    features = artifacts["features"]
    histories = read_histories(features, split.cutoff, user_ids=log.user_ids, item_ids=item_ids)
    statistics = read_statistics(features, split.cutoff, user_ids=log.user_ids, names=first.statistics_names)
    choices = choose_baselines(
        log.known_at(split.validation.start, category=items.category_I),
        log.targets_in(split.validation),
        k=settings.evaluate.cutoff_k,
        seed=SEED,
        track=no_bar,
    )
    known = log.known_at(split.cutoff, category=items.category_I)
    for choice in choices:
        choice.baseline.fit(known)
    new = new_targets(log.targets_in(split.holdout), known.seen)
    rows = np.flatnonzero(np.diff(new.indptr))
    lists = rank_users(
        [BaselineEntrant(choice.baseline) for choice in choices],
        rows=rows,
        seen=known.seen,
        k=settings.evaluate.cutoff_k,
        track=no_bar,
        settings=(NEW_ITEMS,),
    )
    ground = Ground(
        settings=settings,
        split=split,
        artifacts=artifacts,
        bundles=bundles,
        refs=refs,
        log=log,
        known=known,
        histories=histories,
        statistics=statistics,
        contest=NewItems(rows=rows, targets=new[rows], lists=lists[NEW_ITEMS], known=known, items=items),
        lists=(),
    )
    return replace(ground, lists=[ground.rank(bundle.scorer) for bundle in bundles])
