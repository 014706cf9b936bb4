"""`model_card.md`: what a bundle is, what it was made from, and how it did; for the registry and for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.core.artifact import ArtifactRef, Manifest
from components.core.split import TimeSplit
from components.evaluate import figures
from components.evaluate.champion import Champion
from components.evaluate.contest import SETTINGS
from components.evaluate.gates import Judgement
from components.evaluate.report import Measured
from components.measures.bootstrap import Interval

_OUTCOMES: Mapping[str, str] = {
    "pass": "holds",
    "reject": "**fails**",
    "hold": "**a person must look**",
    "insufficient": "too little to tell",
    "not applicable": "does not apply",
}
_SETTING_TITLES = {"new_items": "Items new to the user", "all_items": "All items, repeats allowed"}


def lineage(manifest: Manifest, open_manifest: Callable[[ArtifactRef], Manifest | None]) -> list[ArtifactRef]:
    """Everything that `manifest` was made from, the log first and itself last.

    `open_manifest` (reference -> Manifest or None) reads an ancestor; one that is gone ends its branch.
    """
    found: dict[str, ArtifactRef] = {}

    def visit(ref: ArtifactRef, made: Manifest | None) -> None:
        if ref.uri in found:
            return
        for parent in made.inputs if made else ():
            visit(parent, open_manifest(parent))
        found[ref.uri] = ref

    visit(manifest.ref(), manifest)
    return list(found.values())


def render_model_card(
    manifest: Manifest,
    judgement: Judgement,
    measured: Measured,
    *,
    champion: Champion,
    manifest_of: Callable[[ArtifactRef], Manifest | None],
    ancestors: Sequence[ArtifactRef],
    split: TimeSplit,
    k: int,
) -> str:
    """`ancestors` are the bundle's, the log first and the bundle last; `manifest_of` reads one of them, None: gone."""
    lines = [
        f"# Model card of bundle {manifest.content_sha256[:12]}",
        "",
        f"- verdict: **{judgement.verdict}**",
        f"- learnt from everything before {split.cutoff.isoformat()}, judged on [{split.cutoff.isoformat()}, "
        f"{split.as_of.isoformat()})",
        f"- made by step `{manifest.step}` of run `{manifest.run_id}`: {_one_line(manifest.summary)}",
        "- meant for: ranking a catalogue for a user of the shop whose log it was trained on. Not for decisions about "
        "people, and not for another shop.",
        "",
        "## Lineage",
        "",
        "From the log's hash by what validated it, features and graph to the run that trained the bundle.",
        "",
        "| artifact | made by | rows | content hash | what the step said |",
        "|---|---|---|---|---|",
        *(_lineage_line(ref, manifest if ref.uri == manifest.uri else manifest_of(ref)) for ref in ancestors),
        f"| settings | | | `{manifest.settings_sha256}` | |",
        f"| code | | | `{manifest.code_sha256}` | |",
        "",
        *_result_lines(measured, k),
        *_champion_lines(measured, champion),
        "## Gates",
        "",
        "| gate | condition | found | |",
        "|---|---|---|---|",
        *(f"| {c.name} | {_one_line(c.sentence)} | | {_state(c.passed)} |" for c in judgement.checks),
        *(
            f"| {_one_line(gate.name)} | {_one_line(gate.condition)} | {figures.plain(gate.value)} | "
            f"{_OUTCOMES[gate.outcome]} |"
            for gate in judgement.gates
        ),
        "",
        *_training_lines(manifest.statistics),
    ]
    return "\n".join(lines)


def _result_lines(measured: Measured, k: int) -> list[str]:
    card = measured.card
    if card is None:
        return ["## Results", "", "Nothing was measured: see the gates.", ""]
    lines = []
    for setting in SETTINGS:
        result = card.settings[setting]
        lines += [
            f"## {_SETTING_TITLES[setting]}",
            "",
            f"{figures.count(result.users)} users, {figures.count(result.targets)} targets; "
            f"{card.confidence:.0%} intervals by bootstrap over users.",
            "",
            f"| | recall@{k} | NDCG@{k} | hit rate | coverage |",
            "|---|---|---|---|---|",
        ]
        for name, standing in result.standings.items():
            values = [_interval(standing.metrics[metric]) for metric in ("recall", "ndcg", "hit_rate")]
            lines.append(f"| {name} | {' | '.join(values)} | {figures.percent(standing.coverage)} |")
        lines += [""]
    return lines


def _lineage_line(ref: ArtifactRef, manifest: Manifest | None) -> str:
    made_by = f"`{manifest.step}` of run `{manifest.run_id}`" if manifest else "gone from the store"
    said = _one_line(manifest.summary) if manifest else ""
    return f"| {ref.kind} | {made_by} | {figures.count(ref.rows)} | `{ref.sha256}` | {said} |"


def _champion_lines(measured: Measured, champion: Champion) -> list[str]:
    comparison = measured.card.comparison if measured.card else None
    if comparison is None:
        return ["## Beside the champion", "", champion.sentence, ""]
    lines = [
        "## Beside the champion",
        "",
        f"Bundle `{comparison.champion_sha256[:12]}`, on the same users and items new to them; one-sided bounds.",
        "",
        "| metric | of | users | champion | change |",
        "|---|---|---|---|---|",
    ]
    for one in (*comparison.whole.values(), *comparison.slices):
        part = f"{one.group}: {one.name}" if one.group else one.name
        change = (
            f"{figures.signed(one.difference.mean)} [{figures.signed(one.difference.lower)}, "
            f"{figures.signed(one.difference.upper)}]"
        )
        users, before = figures.count(one.users), figures.figure(one.champion)
        lines.append(f"| {one.metric} | {_one_line(part)} | {users} | {before} | {change} |")
    return [*lines, ""]


def _training_lines(statistics: Mapping[str, Any]) -> list[str]:
    if not statistics:
        return []
    rows = [f"| {_one_line(name)} | {_one_line(str(value))} |" for name, value in sorted(statistics.items())]
    return ["## Training", "", "| | |", "|---|---|", *rows, ""]


def _interval(interval: Interval) -> str:
    return f"{figures.figure(interval.mean)} [{figures.figure(interval.lower)}, {figures.figure(interval.upper)}]"


def _state(passed: bool) -> str:
    return "holds" if passed else "**fails**"


def _one_line(text: str) -> str:
    """Text that cannot break out of a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
