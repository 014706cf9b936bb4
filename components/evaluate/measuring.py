"""Everything that is found out about a bundle: who ranks what for whom, then figures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from components.core.artifact import Manifest
from components.core.errors import ArtifactError
from components.core.sections import EvaluateSettings
from components.core.split import TimeSplit
from components.core.step import StepContext
from components.evaluate.champion import Champion, entrant_of, size_bytes
from components.evaluate.comparison import Comparison, compare
from components.evaluate.contest import (
    ALL_ITEMS,
    MODEL,
    NEW_ITEMS,
    BaselineEntrant,
    Entrant,
    ModelEntrant,
    NewItems,
    one_thread,
    rank_users,
)
from components.evaluate.examples import pick_examples, pick_losses, term_shares
from components.evaluate.latency import request_latency
from components.evaluate.lineage import Check
from components.evaluate.parts import ItemFacts, parts_of
from components.evaluate.recount import recount
from components.evaluate.report import Measured
from components.evaluate.scorecard import Scorecard, SettingResult, SliceResult, score_setting, score_slices
from components.evaluate.tuning import choose_baselines, describe, new_targets
from components.inputs.events import read_events
from components.inputs.users import read_histories, read_statistics
from components.model.bundle import Bundle
from components.model.histories import Histories

SEED = 20_171_231


def score_new_items(
    contest: NewItems, *, champion_sha256: str | None, settings: EvaluateSettings
) -> tuple[SettingResult, tuple[SliceResult, ...], Comparison | None]:
    """Lists -> figures of all entrants, slices beside the best baseline, and the comparison with the champion."""
    parts = list(
        parts_of(
            contest.targets,
            rows=contest.rows,
            known=contest.known,
            items=contest.items,
            categories=settings.slice_categories,
        )
    )
    result = score_setting(contest.lists, contest.targets, rows=contest.rows, known=contest.known, settings=settings)
    slices = score_slices(contest.lists, parts, baseline=result.best_baseline, settings=settings)
    if champion_sha256 is None:
        return result, slices, None
    comparison = compare(contest.lists, contest.targets, parts, champion_sha256=champion_sha256, settings=settings)
    return result, slices, comparison


def measure(
    context: StepContext, bundle: Bundle, champion: Champion, split: TimeSplit
) -> tuple[Sequence[Check], Measured, Champion]:
    """A bundle whose lineage holds -> what a recount of the log says, and, unless that failed, all figures."""
    settings = context.settings.evaluate
    clean, features = context.inputs["clean"], context.inputs["features"]
    item_ids = pa.array(bundle.items.item_ids, pa.string())
    items = ItemFacts.of(bundle.items.categories, bundle.items.prices)
    paths = clean.partition_paths()
    log = read_events(paths, item_ids=item_ids, track=lambda paths: context.track(paths, description="reading the log"))
    histories = read_histories(features, split.cutoff, user_ids=log.user_ids, item_ids=item_ids)
    checks = recount(
        bundle,
        log,
        event_files=paths,
        features=features,
        histories=histories,
        split=split,
        max_skewed_share=settings.max_skewed_share,
        seed=SEED,
    )
    if not all(check.passed for check in checks):
        return checks, Measured(), champion

    def track(description: str) -> Any:
        return lambda chunks, total: context.track(chunks, description=description, total=total)

    choices = choose_baselines(
        log.known_at(split.validation.start, category=items.category_I),
        log.targets_in(split.validation),
        k=settings.cutoff_k,
        seed=SEED,
        track=track("tuning baselines"),
    )
    known = log.known_at(split.cutoff, category=items.category_I)
    for choice in choices:
        choice.baseline.fit(known)
    statistics = read_statistics(features, split.cutoff, user_ids=log.user_ids, names=bundle.statistics_names)
    entrants: list[Entrant] = [ModelEntrant(bundle.scorer, histories=histories, statistics=statistics)]
    if champion.bundle is not None:
        try:
            entrants.append(
                entrant_of(champion.bundle, features=features, split=split, user_ids=log.user_ids, item_ids=item_ids)
            )
        except ArtifactError as error:
            champion = Champion(state="unreadable", sentence=str(error), ref=champion.ref)
    entrants += [BaselineEntrant(choice.baseline) for choice in choices]
    taken = log.targets_in(split.holdout)
    new = new_targets(taken, known.seen)
    rows = np.flatnonzero(np.diff(taken.indptr))
    lists = rank_users(
        entrants,
        rows=rows,
        seen=known.seen,
        k=settings.cutoff_k,
        track=track("ranking all items for all users"),
        rules=bundle.rules,
    )
    # Of the users who took something, those to whom something of it was new.
    has_new = np.diff(new.indptr)[rows] > 0
    contest = NewItems(
        rows=rows[has_new],
        targets=new[rows[has_new]],
        lists={name: ranked[has_new] for name, ranked in lists[NEW_ITEMS].items()},
        known=known,
        items=items,
    )
    sha256 = champion.bundle.sha256 if champion.bundle else None
    on_new, slices, comparison = score_new_items(contest, champion_sha256=sha256, settings=settings)
    on_all = score_setting(lists[ALL_ITEMS], taken[rows], rows=rows, known=known, settings=settings)
    had_history = np.flatnonzero(_users_before(log.user_E, log.time_us_E, split.cutoff, num_users=log.num_users)[rows])
    is_stranger = (histories.lengths.numpy()[rows] == 0)[had_history]
    card = Scorecard(
        k=settings.cutoff_k,
        confidence=settings.confidence,
        resamples=settings.bootstrap_resamples,
        unknown_target_share=float((taken.indices >= log.num_items).mean()) if taken.nnz else 0.0,
        fallback_share=float(is_stranger.mean()) if len(had_history) else 0.0,
        settings={NEW_ITEMS: on_new, ALL_ITEMS: on_all},
        slices=slices,
        has_no_categories=not (items.category_I >= 0).any(),
        comparison=comparison,
    )
    with one_thread():
        shares = term_shares(
            bundle,
            rows=contest.rows,
            ranked=contest.lists[MODEL],
            histories=histories,
            statistics=statistics,
            seed=SEED,
        )
        people = {
            "bundle": bundle,
            "count": settings.example_users,
            "contest": contest,
            "user_ids": log.user_ids,
            "histories": histories,
            "statistics": statistics,
        }
        examples = pick_examples(seed=SEED, **people)
        losses = pick_losses(**people) if comparison else []
    measured = Measured(
        card=card,
        choices={choice.baseline.name: describe(choice.baseline) for choice in choices},
        tuning={choice.baseline.name: choice.recall_by_parameters for choice in choices},
        target_types=log.target_types,
        num_items=log.num_items,
        shares=shares,
        examples=examples,
        losses=losses,
        ratios=_ratios(context, bundle, champion, histories, log.user_ids, rows, settings),
    )
    return checks, measured, champion


def _ratios(
    context: StepContext,
    bundle: Bundle,
    champion: Champion,
    histories: Histories,
    user_ids: pa.StringArray,
    rows: npt.NDArray[np.int64],
    settings: EvaluateSettings,
) -> Mapping[str, float]:
    """Bytes and the cost of a request, the challenger's over the champion's; empty without one."""
    if champion.bundle is None or champion.manifest is None:
        return {}
    mine: Manifest = context.inputs["bundle"].manifest
    sample = rows[np.random.default_rng(SEED).permutation(len(rows))[: settings.latency_requests]]
    features, cutoff = context.inputs["features"], TimeSplit.of(context.moment, context.settings.split).cutoff
    others = read_histories(
        features,
        cutoff,
        user_ids=user_ids.take(pa.array(sample)),
        item_ids=pa.array(champion.bundle.items.item_ids, pa.string()),
    )
    challenger, old = request_latency(
        [bundle, champion.bundle],
        histories=[histories.rows(torch.from_numpy(sample)), others],
        requests=settings.latency_requests,
        k=settings.cutoff_k,
        seed=SEED,
    )
    return {"size": size_bytes(mine) / size_bytes(champion.manifest), "latency": challenger / old}


def _users_before(
    user_E: npt.NDArray[np.int64], time_us_E: npt.NDArray[np.int64], moment: Any, *, num_users: int
) -> npt.NDArray[np.bool_]:
    """(U,) whether the log has an event of the user before the moment, with whatever item."""
    before = time_us_E < round(moment.timestamp() * 1_000_000)
    return np.bincount(user_E[before], minlength=num_users) > 0
