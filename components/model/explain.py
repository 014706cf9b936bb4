"""Why an item is recommended, and what is like it.

Shapes: k items of a list, T terms of the score, N items of the history, E entries of their filter rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.model.attributes import UNKNOWN
from components.model.bundle import Bundle
from components.model.histories import Histories
from components.model.ranking import NO_ITEM
from components.model.retrieval import Ranked
from components.model.rules import ruled_top_k
from components.model.score import REPEAT, SIMILARITY

BECAUSE = 3  # history items named in an explanation
SHARE_DIGITS = 4  # of a list's shares: what people read, and half of the digits to write

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """Shares are of what the terms add above the average item, positive parts only; they sum to 1."""

    shares: dict[str, float]
    because: list[tuple[int, float]]  # by lift: (history item, its part of the filter's or the similarity's pull)
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """The explanations of a list, side by side."""

    terms: tuple[str, ...]
    shares_kT: Floats
    """To SHARE_DIGITS; all 0 where no term lifts the item."""
    because: list[list[tuple[int, float]]]
    sentences: list[str]


def explain(
    bundle: Bundle, history: Histories, statistics_BF: Tensor, item: int, *, include_seen: bool = False
) -> Explanation:
    """Explain one item for one user (`history` of one row)."""
    terms = bundle.scorer.terms(history, statistics_BF, include_seen=include_seen)
    return explain_from_terms(bundle, history, terms, item)


def explain_from_terms(bundle: Bundle, history: Histories, terms: dict[str, Tensor], item: int) -> Explanation:
    """As `explain`, where the caller has computed the weighted terms already."""
    shares = _shares({name: float(term[0, item] - term.mean()) for name, term in terms.items()})
    because = _because(bundle, history, item)
    strongest = max(shares, key=lambda name: shares[name]) if shares else None
    return Explanation(shares=shares, because=because, sentence=_sentence(bundle, strongest, because, item))


def _shares(lifts: Mapping[str, float]) -> dict[str, float]:
    positive = {name: max(lift, 0.0) for name, lift in lifts.items()}
    total = sum(positive.values())
    return {name: lift / total for name, lift in positive.items()} if total > 0 else {}


def explain_listed(bundle: Bundle, ranked: Ranked) -> Reasons:
    """As `explain`, for every item of a list of the retrieval's, from what it kept of the user; `because` has the
    first alone where the filter leads there. All k items at once: one by one, they would cost as much as the list."""
    positive_kT = ranked.lift_kT.astype(np.float64).clip(min=0)
    total_k1 = positive_kT.sum(axis=1, keepdims=True)
    is_lifted_k1 = total_k1 > 0
    because = _led_to(bundle, ranked)
    strongest_k = np.where(is_lifted_k1[:, 0], positive_kT.argmax(axis=1), -1).tolist()
    return Reasons(
        terms=ranked.terms,
        shares_kT=(positive_kT / np.where(is_lifted_k1, total_k1, 1)).round(SHARE_DIGITS),
        because=because,
        sentences=[
            _sentence(bundle, ranked.terms[strongest] if strongest >= 0 else None, led_to, item)
            for strongest, led_to, item in zip(strongest_k, because, ranked.items.tolist(), strict=True)
        ],
    )


def _led_to(bundle: Bundle, ranked: Ranked) -> list[list[tuple[int, float]]]:
    """The first of what `_because` finds, for each item of the list."""
    user, hits = ranked.user, ranked.hits
    num_listed = len(ranked.items)
    if not len(user.history_N):
        return [[]] * num_listed
    total_k = np.bincount(hits.place_H, weights=hits.pull_H, minlength=num_listed)
    lift_H = hits.pull_H / np.maximum(ranked.row_means_I[user.history_N[hits.from_H]], np.float32(1e-12))
    # Of what is written to one place the last stays: the greatest, of equal ones the first in the history.
    rising_H = np.argsort(-lift_H, kind="stable")[::-1]
    best_k = np.zeros(num_listed, np.int64)
    best_k[hits.place_H[rising_H]] = rising_H
    return [
        [(int(user.history_N[hits.from_H[best]]), float(hits.pull_H[best]) / total)]
        if total > 0
        else _alike(bundle, ranked, place)
        for place, (best, total) in enumerate(zip(best_k.tolist(), total_k.tolist(), strict=True))
    ]


def _alike(bundle: Bundle, ranked: Ranked, place: int) -> list[tuple[int, float]]:
    """The history's items by vector, for an item of the list that the filter has no entry of."""
    user, scorer = ranked.user, bundle.scorer
    cosine_N = scorer.history_ID.numpy()[user.history_N] @ scorer.target_ID.numpy()[ranked.items[place]]
    pull_N = user.strengths_N * cosine_N.clip(min=0)
    total = float(pull_N.sum())
    best_N = np.argsort(-pull_N, kind="stable")[:BECAUSE].tolist()
    return [(int(user.history_N[n]), float(pull_N[n]) / total) for n in best_N if pull_N[n] > 0]


def similar(bundle: Bundle, item: int, *, k: int) -> list[tuple[int, float]]:
    """Nearest items by target vector (cosine), under the bundle's rules; the item itself is left out."""
    cosine_I = bundle.scorer.target_ID @ bundle.scorer.target_ID[item]
    cosine_I[[item, *bundle.rules.excluded_by.get(item, ())]] = -torch.inf
    items_1k, values_1k = ruled_top_k(cosine_I[None, :], bundle.rules, k=k)
    found = zip(items_1k[0].tolist(), values_1k[0].tolist(), strict=True)
    return [(other, value) for other, value in found if other != NO_ITEM]


def _because(bundle: Bundle, history: Histories, item: int) -> list[tuple[int, float]]:
    """History items that lead to `item`, by lift; by vector where the filter has no entry.

    Lift is what an item adds to the filter's value of `item`, over what it adds to the average item that it leads to.
    By the addition alone, the one that everybody has and that leads everywhere would be the reason for most things:
    bananas, among groceries.
    """
    if not len(history.items):
        return []
    counted = bundle.scorer.counted
    strengths_N = history.strengths(half_life_days=counted.half_life_days)
    rows = counted.filter_rows
    first_N = rows.indptr[history.items]
    lengths_N = rows.indptr[history.items + 1] - first_N
    place_E = torch.repeat_interleave(torch.arange(len(first_N)), lengths_N)
    entry_E = torch.arange(len(place_E)) + (first_N - lengths_N.cumsum(0) + lengths_N)[place_E]
    hit_E = rows.indices[entry_E] == item
    pull_N = torch.zeros_like(strengths_N).index_add_(0, place_E[hit_E], rows.values[entry_E[hit_E]]) * strengths_N
    if bool(pull_N.any()):
        lift_N = pull_N / rows.row_means[history.items].clamp(min=1e-12)
    else:
        cosine_N = bundle.scorer.history_ID[history.items] @ bundle.scorer.target_ID[item]
        pull_N = lift_N = strengths_N * cosine_N.clamp(min=0)
    total = float(pull_N.sum())
    if total <= 0:
        return []
    best_N = torch.argsort(lift_N, descending=True, stable=True)[:BECAUSE].tolist()
    return [(int(history.items[n]), float(pull_N[n]) / total) for n in best_N if pull_N[n] > 0]


def _sentence(bundle: Bundle, strongest: str | None, because: list[tuple[int, float]], item: int) -> str:
    if strongest is None:
        return "Popular with other customers"
    if strongest == REPEAT:
        return "You buy this often"
    if strongest in {SIMILARITY, "filter"} and because:
        return f"Goes with {bundle.items.display(because[0][0])}"
    if strongest.startswith("affinity_"):
        name = strongest.removeprefix("affinity_")
        attributes = bundle.scorer.counted.attributes
        if int(attributes.codes(name)[item]) != UNKNOWN:
            value = {"category": bundle.items.categories, "brand": bundle.items.brands}.get(name)
            shown = value[item] if value is not None else None
            return f"You often choose {shown}" if shown else f"Fits the {name.replace('_', ' ')} that you choose"
    if because:
        return f"Goes with {bundle.items.display(because[0][0])}"
    return "Popular with other customers"
