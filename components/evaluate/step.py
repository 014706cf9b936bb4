"""Judge a bundle on the hold-out: check its lineage, count the log anew, rank for every user, compare with baselines
and with the bundle that serves, give a verdict.

The step ends well whatever the verdict: 'not promoted' is an answer, and the old bundle goes on serving. It raises
where the challenger's own files are damaged: that is no property of the bundle, and must not outlive the damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.core.artifact import Artifact, ArtifactRef, Manifest
from components.core.errors import ArtifactError
from components.core.pipeline_metrics import Sample
from components.core.split import TimeSplit
from components.core.step import Step, StepContext, StepReport
from components.evaluate import figures
from components.evaluate.champion import Champion, champion_key, local_folder, open_champion
from components.evaluate.contest import ALL_ITEMS, CHAMPION, MODEL, NEW_ITEMS
from components.evaluate.gates import Judgement, judge
from components.evaluate.lineage import check_lineage
from components.evaluate.measuring import SEED, measure
from components.evaluate.model_card import lineage, render_model_card
from components.evaluate.report import Measured, render_report
from components.evaluate.rules import GateResult
from components.evaluate.scorecard import Scorecard, finite_or_none
from components.evaluate.vectors import misplaced_in
from components.model.bundle import Bundle

VERDICTS = ("promote", "hold", "reject", "insufficient")


def run(context: StepContext) -> StepReport:
    settings, split = context.settings.evaluate, TimeSplit.of(context.moment, context.settings.split)
    artifact = context.inputs["bundle"]
    with local_folder(artifact) as folder:
        bundle = Bundle.load(folder)
        misplaced = misplaced_in(folder, bundle.scorer.target_ID.numpy(), seed=SEED)
    champion = open_champion(context.store, challenger_sha256=bundle.sha256, split=split, seed=SEED)
    measured = Measured()
    checks = check_lineage(
        bundle, artifact, clean=context.inputs["clean"], features=context.inputs["features"], split=split
    )
    if all(check.passed for check in checks):
        recounted, measured, champion = measure(context, bundle, champion, split)
        checks = (*checks, *recounted)
    beside = {**measured.ratios, "misplaced": misplaced - champion.misplaced}
    judgement = judge(checks, measured.card, settings, opponent=champion.opponent(beside), bundle_sha256=bundle.sha256)
    _write(context, judgement, measured, champion, split)
    return StepReport(
        summary=_summary(judgement, measured.card),
        rows=measured.card.settings[NEW_ITEMS].users if measured.card else 0,
        statistics=finite_or_none(_statistics(judgement, measured.card)),
        samples=_samples(judgement, measured.card),
    )


def _write(
    context: StepContext, judgement: Judgement, measured: Measured, champion: Champion, split: TimeSplit
) -> None:
    bundle = context.inputs["bundle"].manifest
    ancestors = lineage(bundle, lambda ref: _ancestor(context, ref))
    verdict = {
        "verdict": judgement.verdict,
        "reasons": judgement.reasons,
        "failed": judgement.failed,
        "checks": [asdict(check) for check in judgement.checks],
        "gates": [_plain_gate(gate) for gate in judgement.gates],
        "accepted_by_a_person": judgement.is_accepted,
        # Not where it lies: equal work gives equal hashes in any store.
        "bundle": bundle.ref().model_dump(exclude={"uri"}),
        # None where nothing was compared: the champion had no part in the verdict.
        "champion": champion.ref.sha256 if champion.ref and champion.state == "comparable" else None,
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
    # What a clock measured is no part of the content hash: equal work must give equal hashes.
    _write_json(context.output.path("timings.json", is_report=True), {"ratios_to_champion": measured.ratios})
    report = render_report(
        judgement,
        measured,
        bundle=bundle.ref(),
        champion=champion,
        lineage=ancestors,
        cutoff=split.cutoff,
        as_of=split.as_of,
        settings=context.settings.evaluate,
        split=context.settings.split,
    )
    context.output.path("report.html", is_report=True).write_text(report, encoding="utf-8")
    model_card = render_model_card(
        bundle,
        judgement,
        measured,
        champion=champion,
        manifest_of=lambda ref: _ancestor(context, ref),
        ancestors=ancestors,
        split=split,
        k=context.settings.evaluate.cutoff_k,
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
    failed = f" ({', '.join(judgement.failed)})" if judgement.verdict != "promote" else ""
    beside = ""
    if card.comparison is not None:
        kept = card.comparison.whole["recall"].difference
        beside = (
            f"; champion {figures.figure(card.comparison.whole['recall'].champion)} "
            f"({figures.signed(kept.mean)} [{figures.figure(kept.lower)}, {figures.figure(kept.upper)}])"
        )
    return (
        f"recall@{card.k} {figures.figure(model.mean)} vs best baseline {best} {figures.figure(baseline.mean)} "
        f"({interval}) new items, {figures.count(result.users)} users{beside}; verdict {judgement.verdict}{failed}"
    )


def _statistics(judgement: Judgement, card: Scorecard | None) -> dict[str, Any]:
    """What the pipeline and the registry show of an evaluation."""
    statistics: dict[str, Any] = {"verdict": judgement.verdict, "failed_gates": judgement.failed}
    if card is None:
        return statistics
    result = card.settings[NEW_ITEMS]
    model, lead = result.standings[MODEL], result.differences[result.best_baseline]["recall"]
    if card.comparison is not None:
        for metric, contrast in card.comparison.whole.items():
            statistics |= {
                f"{CHAMPION}_{metric}": contrast.champion,
                f"{CHAMPION}_{metric}_lead": contrast.difference.mean,
                f"{CHAMPION}_{metric}_lead_lower": contrast.difference.lower,
                f"{CHAMPION}_{metric}_lead_upper": contrast.difference.upper,
            }
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


def _plain_gate(gate: GateResult) -> dict[str, Any]:
    plain = asdict(gate) | {"passed": gate.passed}
    return plain | {"value": None} if gate.is_clocked else plain


def _samples(judgement: Judgement, card: Scorecard | None) -> list[Sample]:
    """Verdict, gates and figures for Prometheus."""
    samples = [
        Sample("basketweave_evaluation_verdict", {"verdict": verdict}, float(verdict == judgement.verdict))
        for verdict in VERDICTS
    ]
    names = dict.fromkeys(gate.name.partition(":")[0] for gate in judgement.gates)
    for name in names:
        of_gate = [gate for gate in judgement.gates if gate.name.partition(":")[0] == name]
        failed = sum(gate.stands_in_the_way for gate in of_gate)
        samples.append(Sample("basketweave_evaluation_gate_failed", {"gate": name}, float(failed > 0)))
    for check in judgement.checks:
        samples.append(Sample("basketweave_evaluation_gate_failed", {"gate": check.name}, float(not check.passed)))
    if card is None:
        return samples
    for entrant, standing in card.settings[NEW_ITEMS].standings.items():
        for metric in ("recall", "ndcg"):
            labels = {"entrant": entrant, "metric": metric}
            samples.append(Sample("basketweave_evaluation_quality", labels, standing.metrics[metric].mean))
        labels = {"entrant": entrant, "metric": "coverage"}
        samples.append(Sample("basketweave_evaluation_quality", labels, standing.coverage))
    return samples


def _key(context: StepContext) -> Mapping[str, Any]:
    """What decides the verdict beside the inputs' content: lineage that they claim, graph and champion as they are."""
    bundle = context.inputs["bundle"].manifest
    graph = next((ref for ref in bundle.inputs if ref.kind == "graph"), None)
    return {
        # Bundles of equal bytes share a content hash; what each says it was made from is judged here too.
        "inputs": sorted((ref.kind, ref.sha256) for ref in bundle.inputs),
        "graph is there": graph is not None and _ancestor(context, graph) is not None,
        "champion": champion_key(context.store, challenger_sha256=bundle.content_sha256),
    }


STEP = Step(
    name="evaluate",
    kind="evaluation",
    inputs=("clean", "features", "bundle"),
    sections=("evaluate", "split"),
    rooms=("components.evaluate", "components.inputs", "components.measures", "components.model"),
    run=run,
    fingerprint=_key,
)
