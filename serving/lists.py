"""From scores to a list: filters, the merchandiser's rules, diversity, and exploration with its true probability.

Shapes: I items, C candidates of a pool, k length of a list, D dimensions.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.model.bundle import Bundle
from components.model.retrieval import Ranked as Retrieved
from components.model.retrieval_terms import shown
from components.model.rules import NO_LIST_RULES, ListRules
from serving.errors import RequestError
from serving.schemas import ListConditions

# Candidates that diversity and exploration choose among: this many a place of the list, and no fewer than the floor.
POOL_A_PLACE = 5
SMALLEST_POOL = 50


class Ranked(NamedTuple):
    """One list."""

    items: list[int]  # indices in the bundle, best first
    scores: list[float]
    propensity: float = 1.0  # probability of this very list


class Filters:
    """Which items a request leaves to choose from."""

    def __init__(self, bundle: Bundle) -> None:
        items = bundle.items
        self._index = items.index
        self._num_items = len(items.item_ids)
        self._prices_I = torch.from_numpy(items.prices)  # nan compares false, so an unknown price passes no bound
        names = items.categories.values
        self.categories = sorted(name for name in names if name is not None)
        self._code = {name: code for code, name in enumerate(self.categories)}
        code_of_value = np.array([-1 if name is None else self._code[name] for name in names], np.int32)
        self._category_I = torch.from_numpy(code_of_value[items.categories.codes])

    def allowed(self, request: ListConditions) -> Tensor | None:
        """(I,) bool, or None where everything is allowed. Raises RequestError for a category that no item has."""
        allowed_I: Tensor | None = None
        if request.in_stock is not None:
            allowed_I = torch.zeros(self._num_items, dtype=torch.bool)
            allowed_I[self._known(request.in_stock)] = True
        if request.category is not None:
            of_category_I = self._category_I == self._code_of(request.category)
            allowed_I = of_category_I if allowed_I is None else allowed_I & of_category_I
        if request.price_min is not None:
            over_I = self._prices_I >= request.price_min
            allowed_I = over_I if allowed_I is None else allowed_I & over_I
        if request.price_max is not None:
            under_I = self._prices_I <= request.price_max
            allowed_I = under_I if allowed_I is None else allowed_I & under_I
        if request.exclude:
            if allowed_I is None:
                allowed_I = torch.ones(self._num_items, dtype=torch.bool)
            allowed_I[self._known(request.exclude)] = False
        return allowed_I

    def _known(self, item_ids: Sequence[str]) -> list[int]:
        return [index for item_id in item_ids if (index := self._index.get(item_id)) is not None]

    def _code_of(self, category: str) -> int:
        code = self._code.get(category)
        if code is None:
            near = difflib.get_close_matches(category, self.categories, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else " GET /model lists them."
            raise RequestError(f"No item has the category '{category}'.{hint}")
        return code


class ListStatistics:
    """What lists are made of, as figures that a drift of the service shows in."""

    def __init__(self, bundle: Bundle) -> None:
        popularity_I = np.asarray(bundle.items.popularity)
        # Share of the items that are less known.
        self._percentile_I = np.searchsorted(np.sort(popularity_I), popularity_I) / max(len(popularity_I), 1)
        self._category_I = bundle.items.categories.codes

    def of(self, rows: Sequence[int]) -> dict[str, float]:
        """Mean popularity percentile, and categories an item; empty for an empty list. Both lie in 0..1. `rows`: of
        the bundle, the items."""
        if not rows:
            return {}
        return {
            "popularity_percentile": float(self._percentile_I.take(rows).sum()) / len(rows),
            "categories_an_item": len(set(self._category_I.take(rows).tolist())) / len(rows),
        }


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How often a list is drawn instead of ranked, and how far it strays."""

    share: float = 0.0
    temperature: float = 1.0


def rank(
    bundle: Bundle,
    best: Callable[[int, ListRules], Retrieved],
    request: ListConditions,
    *,
    exploration: Exploration,
    seed: int,
) -> tuple[Ranked, Retrieved]:
    """The list of one user, and the same as the retrieval found it. The same seed, the same list.

    Args:
        best: the k best items under the given rules.
    """
    num_items = len(bundle.items)
    k = min(request.k, num_items)
    if not request.diversity and not exploration.share:
        found = best(k, bundle.rules)
        return Ranked(found.items.tolist(), shown(found.scores)), found
    width = max(POOL_A_PLACE * k, SMALLEST_POOL)
    while True:
        found = best(min(width, num_items), NO_LIST_RULES)
        pool_C, values_C = found.items, found.scores.astype(np.float64)
        places = diverse(bundle.scorer.target_ID[pool_C].numpy(), pool_C, values_C, bundle.rules, request)
        if len(places) == k or len(pool_C) < min(width, num_items) or width >= num_items:
            break
        width *= 2  # the rules left too few
    propensity = 1.0
    if exploration.share:
        places, propensity = explored(places, pool_C, values_C, bundle.rules, exploration=exploration, seed=seed)
    found = found.only(places)
    return Ranked(found.items.tolist(), shown(found.scores), propensity), found


def diverse(
    vectors_CD: npt.NDArray[np.float32],
    pool_C: npt.NDArray[np.int64],
    values_C: npt.NDArray[np.float64],
    rules: ListRules,
    request: ListConditions,
) -> list[int]:
    """Places in the pool by maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998), as many as k.

    Each next item is the best of (1 - d) · relevance - d · (highest cosine with an item of the list), with relevance
    the score stretched to 0..1 over the pool. d = 0 is the plain ranking. Costs k products of (C, D) and (D,).
    """
    if not len(pool_C):
        return []
    low, high = values_C[-1], values_C[0]
    relevance_C = (values_C - low) / (high - low) if high > low else np.zeros_like(values_C)
    nearest_C = np.full(len(pool_C), -1.0)
    is_left_C = np.ones(len(pool_C), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < request.k and is_left_C.any():
        penalty_C = nearest_C if chosen else 0.0
        marginal_C = (1 - request.diversity) * relevance_C - request.diversity * penalty_C
        place = int(np.where(is_left_C, marginal_C, -np.inf).argmax())  # equals: the better score comes first
        chosen.append(place)
        _take(place, pool_C, rules, is_left_C)
        nearest_C = np.maximum(nearest_C, vectors_CD @ vectors_CD[place])
    return chosen


def explored(
    best: Sequence[int],
    pool_C: npt.NDArray[np.int64],
    values_C: npt.NDArray[np.float64],
    rules: ListRules,
    *,
    exploration: Exploration,
    seed: int,
) -> tuple[list[int], float]:
    """`best`, or with the probability `share` a list drawn from the pool; and the probability of what came out.

    Drawn lists follow the Plackett-Luce model (Plackett 1975), in the form in which counterfactual learning to rank
    logs it: place by place, proportionally to exp(score / temperature) of what the rules leave. The policy is the
    mixture of both, so a list's probability is the mixture's, whichever of the two made it.
    """
    generator = np.random.default_rng(seed)
    is_drawn = generator.random() < exploration.share
    logits_C = (values_C - values_C.max(initial=-math.inf)) / exploration.temperature
    places = _draw(logits_C, pool_C, rules, length=len(best), generator=generator) if is_drawn else list(best)
    drawn_probability = _probability(places, logits_C, pool_C, rules)
    ranked_probability = 1.0 if places == list(best) else 0.0
    return places, (1 - exploration.share) * ranked_probability + exploration.share * drawn_probability


def _draw(
    logits_C: npt.NDArray[np.float64],
    pool_C: npt.NDArray[np.int64],
    rules: ListRules,
    *,
    length: int,
    generator: np.random.Generator,
) -> list[int]:
    # The order of logits with Gumbel noise is a draw of the model, and an item that the rules bar is passed over:
    # what is left keeps its proportions.
    noisy_C = logits_C + generator.gumbel(size=len(logits_C))
    is_left_C = np.ones(len(pool_C), dtype=bool)
    places: list[int] = []
    for place in np.argsort(-noisy_C, kind="stable").tolist():
        if len(places) == length:
            break
        if is_left_C[place]:
            places.append(place)
            _take(place, pool_C, rules, is_left_C)
    return places


def _probability(
    places: Sequence[int], logits_C: npt.NDArray[np.float64], pool_C: npt.NDArray[np.int64], rules: ListRules
) -> float:
    is_left_C = np.ones(len(pool_C), dtype=bool)
    log_probability = 0.0
    for place in places:
        log_probability += logits_C[place] - math.log(np.exp(logits_C[is_left_C]).sum())
        _take(place, pool_C, rules, is_left_C)
    return math.exp(log_probability)


def _take(place: int, pool_C: npt.NDArray[np.int64], rules: ListRules, is_left_C: npt.NDArray[np.bool_]) -> None:
    """Strike the item, and those that may not stand beside it, off what is left."""
    is_left_C[place] = False
    barred = rules.excluded_by.get(int(pool_C[place]))
    if barred:
        is_left_C &= ~np.isin(pool_C, list(barred))
