"""`report.html`: one file that loads nothing; every text of the data is escaped by the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources

import jinja2
from markupsafe import Markup

from components.core.artifact import ArtifactRef
from components.core.sections import EvaluateSettings, SplitSettings
from components.evaluate import figures
from components.evaluate.champion import Champion
from components.evaluate.charts import champion_chart, difference_chart, share_chart, slice_chart
from components.evaluate.contest import ALL_ITEMS, NEW_ITEMS
from components.evaluate.examples import Example
from components.evaluate.gates import Judgement
from components.evaluate.scorecard import Scorecard

VERDICT_TEXT = {
    "promote": "promoted",
    "hold": "held for a person",
    "reject": "not promoted",
    "insufficient": "not promoted: too little to judge",
}
# Outcome of a gate -> the page's style for it, and its words.
OUTCOMES = {
    "pass": ("yes", "holds"),
    "reject": ("no", "fails"),
    "hold": ("maybe", "for a person"),
    "insufficient": ("maybe", "cannot be told"),
    "not applicable": ("none", "does not apply"),
}
METRIC_LABELS = {
    "recall": "recall@{k}",
    "ndcg": "NDCG@{k}",
    "hit_rate": "hit rate",
    "reciprocal_rank": "MRR",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found; empty parts where a failed check left nothing to measure."""

    card: Scorecard | None = None
    choices: Mapping[str, str] | None = None
    """Baseline -> the setting it was given."""
    tuning: Mapping[str, Mapping[str, float]] | None = None
    """Baseline -> setting -> its recall on the validation window."""
    target_types: Sequence[str] = ()
    num_items: int = 0
    shares: Mapping[str, float] | None = None
    examples: Sequence[Example] = ()
    losses: Sequence[Example] = ()
    """Users who lost most beside the champion."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """Of the bundle's bytes and the cost of a request, over the champion's."""


def render_report(
    judgement: Judgement,
    measured: Measured,
    *,
    bundle: ArtifactRef,
    champion: Champion,
    lineage: Sequence[ArtifactRef],
    cutoff: datetime,
    as_of: datetime,
    settings: EvaluateSettings,
    split: SplitSettings,
) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    for rule in (figures.figure, figures.signed, figures.percent, figures.number, figures.plain, figures.count):
        environment.filters[rule.__name__] = rule
    environment.filters["day"] = lambda moment: f"{moment:%-d %B %Y}"
    template = environment.from_string(resources.files(__package__).joinpath("report.html").read_text("utf-8"))
    labels = {metric: label.format(k=settings.cutoff_k) for metric, label in METRIC_LABELS.items()}
    return template.render(
        judgement=judgement,
        verdict_text=VERDICT_TEXT[judgement.verdict],
        card=measured.card,
        choices=measured.choices or {},
        target_types=measured.target_types,
        num_items=measured.num_items,
        examples=measured.examples,
        losses=measured.losses,
        outcomes=OUTCOMES,
        champion=champion,
        margin=settings.margin,
        slice_margin=settings.slice_margin,
        metric_labels=labels,
        confidence=f"{settings.confidence:.0%}",
        min_users=settings.min_users,
        window_days=split.window_days,
        bundle_sha256=bundle.sha256,
        lineage=lineage,
        cutoff=cutoff,
        as_of=as_of,
        **_pictures(judgement, measured, labels),
    )


def _pictures(judgement: Judgement, measured: Measured, labels: Mapping[str, str]) -> dict[str, object]:
    card = measured.card
    if card is None:
        return {}
    drawn = {metric: f"lead in {labels[metric]}" for metric in ("recall", "ndcg")}
    own = card.settings[ALL_ITEMS].differences.get("own frequency")
    # The markup is ours: charts.py makes it, and matplotlib escapes the texts in it.
    shown = [gate for gate in judgement.gates if gate.interval is not None and gate.users]
    return {
        "difference_svg": Markup(difference_chart(card.settings[NEW_ITEMS].differences, drawn)),  # noqa: S704
        "champion_svg": Markup(champion_chart(shown)) if shown else None,  # noqa: S704
        "slice_svg": Markup(slice_chart(card.slices)),  # noqa: S704
        "share_svg": Markup(share_chart(measured.shares)) if measured.shares else None,  # noqa: S704
        "frequency_lead": own["recall"] if own else None,
    }
