"""Judge a bundle on the hold-out: check its lineage, rank for every user, compare with baselines, give a verdict.

The step ends well whatever the verdict: 'not promoted' is an answer, and the old bundle goes on serving.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.core.artifact import MANIFEST, Artifact, ArtifactRef, Manifest
from components.core.errors import ArtifactError
from components.core.split import TimeSplit
from components.core.step import Step, StepContext, StepReport
from components.evaluate import figures
from components.evaluate.contest import (
    ALL_ITEMS,
    MODEL,
    NEW_ITEMS,
    BaselineEntrant,
    ModelEntrant,
    one_thread,
    rank_users,
)
from components.evaluate.examples import pick_examples, term_shares
from components.evaluate.gates import Judgement, judge
from components.evaluate.lineage import check_lineage, unreadable
from components.evaluate.model_card import lineage, render_model_card
from components.evaluate.report import Measured, render_report
from components.evaluate.scorecard import Scorecard, finite_or_none, score_setting, score_slices
from components.evaluate.tuning import choose_baselines, describe, new_targets
from components.inputs.events import read_events
from components.inputs.users import read_histories, read_statistics
from components.model.bundle import Bundle

SEED = 20_171_231


def run(context: StepContext) -> StepReport:
    settings, split = context.settings.evaluate, TimeSplit.of(context.moment, context.settings.split)
    artifact = context.inputs["bundle"]
    measured = Measured()
    try:
        with _local_folder(artifact) as folder:
            bundle = Bundle.load(folder)
    except ArtifactError as error:
        checks = unreadable(error)
    else:
        clean, features = context.inputs["clean"], context.inputs["features"]
        checks = check_lineage(bundle, artifact, clean=clean, features=features, split=split)
        if all(check.passed for check in checks):
            measured = measure(context, bundle, split)
    judgement = judge(checks, measured.card, settings)
    _write(context, judgement, measured, split)
    return StepReport(
        summary=_summary(judgement, measured.card),
        rows=measured.card.settings[NEW_ITEMS].users if measured.card else 0,
        statistics=finite_or_none(_statistics(judgement, measured.card)),
    )


def measure(context: StepContext, bundle: Bundle, split: TimeSplit) -> Measured:
    """Everything that is found out about a bundle whose lineage holds."""
    settings = context.settings.evaluate
    item_ids = pa.array(bundle.items.item_ids, pa.string())
    category = _codes(bundle.items.categories)
    log = read_events(
        context.inputs["clean"].partition_paths(),
        item_ids=item_ids,
        track=lambda paths: context.track(paths, description="reading the log"),
    )

    def track(description: str) -> Any:
        return lambda chunks, total: context.track(chunks, description=description, total=total)

    choices = choose_baselines(
        log.known_at(split.validation.start, category=category),
        log.targets_in(split.validation),
        k=settings.cutoff_k,
        seed=SEED,
        track=track("tuning baselines"),
    )
    known = log.known_at(split.cutoff, category=category)
    for choice in choices:
        choice.baseline.fit(known)
    features = context.inputs["features"]
    histories = read_histories(features, split.cutoff, user_ids=log.user_ids, item_ids=item_ids)
    statistics = read_statistics(features, split.cutoff, user_ids=log.user_ids, names=bundle.statistics_names)
    taken = log.targets_in(split.holdout)
    new = new_targets(taken, known.seen)
    rows = np.flatnonzero(np.diff(taken.indptr))
    lists = rank_users(
        [
            ModelEntrant(bundle.scorer, histories=histories, statistics=statistics),
            *(BaselineEntrant(choice.baseline) for choice in choices),
        ],
        rows=rows,
        seen=known.seen,
        k=settings.cutoff_k,
        track=track("ranking all items for all users"),
        rules=bundle.rules,
    )
    # Of the users who took something, those to whom something of it was new.
    has_new = np.diff(new.indptr)[rows] > 0
    new_rows = rows[has_new]
    new_lists = {name: ranked[has_new] for name, ranked in lists[NEW_ITEMS].items()}
    on_new = score_setting(new_lists, new[new_rows], known=known, settings=settings)
    on_all = score_setting(lists[ALL_ITEMS], taken[rows], known=known, settings=settings)
    card = Scorecard(
        k=settings.cutoff_k,
        confidence=settings.confidence,
        resamples=settings.bootstrap_resamples,
        unknown_target_share=float((taken.indices >= log.num_items).mean()) if taken.nnz else 0.0,
        settings={NEW_ITEMS: on_new, ALL_ITEMS: on_all},
        slices=score_slices(
            new_lists, new[new_rows], rows=new_rows, known=known, baseline=on_new.best_baseline, settings=settings
        ),
    )
    with one_thread():
        shares = term_shares(
            bundle, rows=new_rows, ranked=new_lists[MODEL], histories=histories, statistics=statistics, seed=SEED
        )
        examples = pick_examples(
            bundle,
            count=settings.example_users,
            seed=SEED,
            rows=new_rows,
            ranked=new_lists[MODEL],
            targets=new[new_rows],
            known=known,
            user_ids=log.user_ids,
            histories=histories,
            statistics=statistics,
        )
    return Measured(
        card=card,
        choices={choice.baseline.name: describe(choice.baseline) for choice in choices},
        tuning={choice.baseline.name: choice.recall_by_parameters for choice in choices},
        target_types=log.target_types,
        num_items=log.num_items,
        shares=shares,
        examples=examples,
    )


def _write(context: StepContext, judgement: Judgement, measured: Measured, split: TimeSplit) -> None:
    bundle = context.inputs["bundle"].manifest
    ancestors = lineage(bundle, lambda ref: _ancestor(context, ref))
    verdict = {
        "verdict": judgement.verdict,
        "reasons": judgement.reasons,
        "failed": judgement.failed,
        "checks": [asdict(check) for check in judgement.checks],
        "gates": [asdict(gate) for gate in judgement.gates],
        # Not where it lies: equal work gives equal hashes in any store.
        "bundle": bundle.ref().model_dump(exclude={"uri"}),
        "cutoff": split.cutoff.isoformat(),
        "as_of": split.as_of.isoformat(),
    }
    metrics = {
        **(measured.card.plain() if measured.card else {}),
        "target_types": measured.target_types,
        "baselines": measured.choices,
        "tuning": measured.tuning,
        "term_shares": measured.shares,
    }
    _write_json(context.output.path("verdict.json"), verdict)
    _write_json(context.output.path("metrics.json"), metrics)
    report = render_report(
        judgement,
        measured,
        bundle=bundle.ref(),
        lineage=ancestors,
        cutoff=split.cutoff,
        as_of=split.as_of,
        settings=context.settings.evaluate,
        split=context.settings.split,
    )
    context.output.path("report.html", is_report=True).write_text(report, encoding="utf-8")
    model_card = render_model_card(
        bundle, judgement, measured, ancestors=ancestors, split=split, k=context.settings.evaluate.cutoff_k
    )
    # A report too: it names the run, and equal work must give equal hashes.
    context.output.path("model_card.md", is_report=True).write_text(model_card, encoding="utf-8")


def _summary(judgement: Judgement, card: Scorecard | None) -> str:
    if card is None:
        return f"nothing measured: {judgement.reasons[0]} verdict {judgement.verdict}"
    result = card.settings[NEW_ITEMS]
    best, model = result.best_baseline, result.standings[MODEL].metrics["recall"]
    lead = result.differences[best]["recall"]
    baseline = result.standings[best].metrics["recall"]
    interval = f"{figures.signed(lead.mean)} [{figures.figure(lead.lower)}, {figures.figure(lead.upper)}]"
    failed = f" ({', '.join(judgement.failed)})" if judgement.failed else ""
    return (
        f"recall@{card.k} {figures.figure(model.mean)} vs best baseline {best} {figures.figure(baseline.mean)} "
        f"({interval}) new items, {figures.count(result.users)} users; verdict {judgement.verdict}{failed}"
    )


def _statistics(judgement: Judgement, card: Scorecard | None) -> dict[str, Any]:
    """What the pipeline and the registry show of an evaluation."""
    statistics: dict[str, Any] = {"verdict": judgement.verdict, "failed_gates": judgement.failed}
    if card is None:
        return statistics
    result = card.settings[NEW_ITEMS]
    model, lead = result.standings[MODEL], result.differences[result.best_baseline]["recall"]
    return {
        **statistics,
        **{name: interval.mean for name, interval in model.metrics.items()},
        "coverage": model.coverage,
        "users": result.users,
        "best_baseline": result.best_baseline,
        "best_baseline_recall": result.standings[result.best_baseline].metrics["recall"].mean,
        "recall_lead": lead.mean,
        "recall_lead_lower": lead.lower,
        "recall_lead_upper": lead.upper,
        "recall_all_items": card.settings[ALL_ITEMS].standings[MODEL].metrics["recall"].mean,
    }


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(finite_or_none(value), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def _ancestor(context: StepContext, ref: ArtifactRef) -> Manifest | None:
    try:
        return Artifact.open(context.store, ref.uri, sha256=ref.sha256).manifest
    except ArtifactError:
        return None


def _codes(values: Sequence[str | None]) -> np.ndarray:
    """(I,) numbers of the values in sorted order; -1 for None."""
    code_of = {value: code for code, value in enumerate(sorted({value for value in values if value is not None}))}
    return np.array([-1 if value is None else code_of[value] for value in values], dtype=np.int64)


@contextmanager
def _local_folder(artifact: Artifact) -> Iterator[Path]:
    """A folder of this machine with the artifact's files, their hashes checked, and its manifest."""
    if artifact.store.is_local:
        artifact.verify()
        yield Path(artifact.store.path(artifact.store.relative(artifact.manifest.uri)))
        return
    with tempfile.TemporaryDirectory(prefix="basketweave-") as name:
        for file in artifact.file_names:
            target = Path(name) / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path(file), target)
        (Path(name) / MANIFEST).write_text(artifact.manifest.model_dump_json())
        yield Path(name)


STEP = Step(
    name="evaluate",
    kind="evaluation",
    inputs=("clean", "features", "bundle"),
    sections=("evaluate", "split"),
    rooms=("components.evaluate", "components.inputs", "components.measures", "components.model"),
    run=run,
    # Bundles of equal bytes share a content hash; what each says it was made from is judged here too.
    fingerprint=lambda context: sorted((ref.kind, ref.sha256) for ref in context.inputs["bundle"].manifest.inputs),
)
