"""Challenger beside champion: the same users, the same catalogue, the same draws; in all, and slice by slice.

A loss matters from a margin ε on, a share of the champion's mean. Three things can be found of a difference d of means:

    shown not worse    the lower one-sided bound of d is above -ε (better: above 0)
    shown worse        the upper one-sided bound of d is below -ε
    not told apart     neither: more users are needed

The bounds are those of one-sided tests by paired bootstrap over users. A single test keeps its error at 1 - confidence;
for many of them at once, components/evaluate/gates.py goes by the p-values, corrected after Holm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from components.core.sections import EvaluateSettings
from components.evaluate.contest import CHAMPION, MODEL
from components.evaluate.parts import Part
from components.measures.bootstrap import Interval, Resampled, resample
from components.measures.ranking import Ranked, list_metrics

BOOTSTRAP_SEED = 20_171_231
METRICS: tuple[str, ...] = ("recall", "ndcg")
SLICE_METRIC = "recall"


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One metric of both, over the users of one slice (`group` None: over all)."""

    metric: str
    group: str | None
    name: str
    users: int
    champion: float
    challenger: float
    difference: Interval
    """Challenger minus champion, between its two one-sided bounds."""
    margin: float
    """ε, in units of the metric; nan where the champion has no figure."""
    p_worse: float
    """Of 'it is not worse by more than ε' against 'it is'."""
    p_not_worse: float
    """Of 'it is worse by ε or more' against 'it is not'."""

    @property
    def is_better(self) -> bool:
        return self.difference.lower > 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every contrast of one contest."""

    champion_sha256: str
    whole: Mapping[str, Contrast]
    """Metric -> over all users."""
    slices: tuple[Contrast, ...]


def compare(
    lists: Mapping[str, Ranked],
    targets: sp.csr_matrix,
    parts: Sequence[Part],
    *,
    champion_sha256: str,
    settings: EvaluateSettings,
) -> Comparison:
    """Lists (R, k) of MODEL and CHAMPION and the targets (R, I + X) of the same users -> how they differ."""
    model, champion = list_metrics(lists[MODEL], targets), list_metrics(lists[CHAMPION], targets)
    pairs = [(model.by_name()[metric], champion.by_name()[metric]) for metric in METRICS]
    for part in parts:
        pairs.append(
            (
                list_metrics(lists[MODEL], part.targets).by_name()[SLICE_METRIC],
                list_metrics(lists[CHAMPION], part.targets).by_name()[SLICE_METRIC],
            )
        )
    members = np.column_stack([part.members_R for part in parts]) if parts else np.empty((targets.shape[0], 0), bool)
    group_of_pair = [-1] * len(METRICS) + list(range(len(parts)))
    drawn = resample(
        np.column_stack([column for one, other in pairs for column in (one, other, one - other)]),
        resamples=settings.bootstrap_resamples,
        seed=BOOTSTRAP_SEED,
        members=members,
        member_column=np.repeat(group_of_pair, 3),
    )
    # Two one-sided bounds, each of its own `confidence`.
    bounds = drawn.intervals(confidence=2 * settings.confidence - 1)

    def contrast(place: int, *, metric: str, group: str | None, name: str, users: int, margin: float) -> Contrast:
        return _contrast(drawn, bounds, place, metric=metric, group=group, name=name, users=users, margin=margin)

    whole = {
        metric: contrast(
            place, metric=metric, group=None, name="all users", users=targets.shape[0], margin=settings.margin
        )
        for place, metric in enumerate(METRICS)
    }
    slices = tuple(
        contrast(
            len(METRICS) + place,
            metric=SLICE_METRIC,
            group=part.group,
            name=part.name,
            users=int(part.members_R.sum()),
            margin=settings.slice_margin,
        )
        for place, part in enumerate(parts)
    )
    return Comparison(champion_sha256=champion_sha256, whole=whole, slices=slices)


def _contrast(
    drawn: Resampled,
    bounds: Sequence[Interval],
    place: int,
    *,
    metric: str,
    group: str | None,
    name: str,
    users: int,
    margin: float,
) -> Contrast:
    model, champion, difference = 3 * place, 3 * place + 1, 3 * place + 2
    mean = float(drawn.mean_M[champion])
    epsilon = margin * mean
    return Contrast(
        metric=metric,
        group=group,
        name=name,
        users=users,
        champion=mean,
        challenger=float(drawn.mean_M[model]),
        difference=bounds[difference],
        margin=epsilon,
        p_worse=drawn.p_below(difference, -epsilon),
        p_not_worse=drawn.p_above(difference, -epsilon),
    )
