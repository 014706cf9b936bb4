"""What a person can look at: a few users' lists beside what they had and what they then took, and what made the lists.

Users are named by a hash that differs from bundle to bundle, never by their id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from components.evaluate.contest import CHAMPION, MODEL, NewItems
from components.measures.ranking import Ranked, list_metrics
from components.model.bundle import Bundle
from components.model.explain import explain_from_terms
from components.model.histories import Histories
from components.model.ranking import NO_ITEM

MOST_HAD = 12
MOST_TAKEN = 24
_SHARE_USERS = 100
_SHARE_SCORES = 2_000_000


@dataclass(frozen=True, kw_only=True)
class ExampleItem:
    title: str
    category: str | None
    is_hit: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    pseudonym: str
    distinct_items: int
    had: tuple[ExampleItem, ...]
    """What the user has had most, most first."""
    listed: tuple[ExampleItem, ...]
    champion_listed: tuple[ExampleItem, ...]
    """Empty without a champion to compare with."""
    taken: tuple[ExampleItem, ...]
    """What was new to the user in the hold-out, the listed items first."""
    taken_in_all: int

    @property
    def num_hits(self) -> int:
        return sum(item.is_hit for item in self.listed)

    @property
    def num_champion_hits(self) -> int:
        return sum(item.is_hit for item in self.champion_listed)


def pick_examples(
    bundle: Bundle,
    *,
    count: int,
    seed: int,
    contest: NewItems,
    user_ids: pa.StringArray,
    histories: Histories,
    statistics: Tensor,
) -> list[Example]:
    """Users drawn at random from the contest; `user_ids`, `histories` and `statistics` are of all U users."""
    chosen = np.random.default_rng(seed).permutation(len(contest.rows))[:count]
    return [_example(bundle, int(place), contest, user_ids, histories, statistics) for place in chosen]


def pick_losses(
    bundle: Bundle,
    *,
    count: int,
    contest: NewItems,
    user_ids: pa.StringArray,
    histories: Histories,
    statistics: Tensor,
) -> list[Example]:
    """The users who lost most NDCG by the challenger, the most first, beside the champion's list for them."""
    before = list_metrics(contest.lists[CHAMPION], contest.targets).ndcg
    lost = before - list_metrics(contest.lists[MODEL], contest.targets).ndcg
    chosen = [place for place in np.argsort(-lost, kind="stable")[:count] if lost[place] > 0]
    return [_example(bundle, int(place), contest, user_ids, histories, statistics) for place in chosen]


def term_shares(
    bundle: Bundle, *, rows: np.ndarray, ranked: Ranked, histories: Histories, statistics: Tensor, seed: int
) -> Mapping[str, float]:
    """Term -> its part of what lifts the listed items' score above the average item's; the parts sum to 1.

    A term that speaks against the listed items has a negative part. Over a sample of the users, all alike.
    """
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.permutation(len(rows))[:_SHARE_USERS])
    sample = sample[(ranked[sample] != NO_ITEM).all(axis=1)]
    step = max(1, _SHARE_SCORES // max(len(bundle.items.item_ids), 1))
    lifts: dict[str, list[float]] = {}
    for start in range(0, len(sample), step):
        part = sample[start : start + step]
        users = torch.from_numpy(rows[part])
        listed_Bk = torch.from_numpy(ranked[part])
        for name, term_BI in bundle.scorer.terms(histories.rows(users), statistics[users]).items():
            term_BI = term_BI.cpu().expand(len(part), -1)
            lift_B = term_BI.gather(1, listed_Bk).mean(dim=1) - term_BI.mean(dim=1)
            lifts.setdefault(name, []).extend(lift_B.tolist())
    means = {name: float(np.mean(values)) for name, values in lifts.items()}
    total = sum(means.values())
    return {name: mean / total for name, mean in means.items()} if total > 0 else {}


def pseudonym(user_id: str, *, salt: str) -> str:
    return hashlib.sha256(f"{salt}:{user_id}".encode()).hexdigest()[:8]


def _example(
    bundle: Bundle,
    place: int,
    contest: NewItems,
    user_ids: pa.StringArray,
    histories: Histories,
    statistics: Tensor,
) -> Example:
    row = int(contest.rows[place])
    frequency = contest.known.frequency[[row]]
    history, taken = histories.rows(torch.tensor([row])), contest.targets[[place]].indices
    most = np.argsort(-frequency.data, kind="stable")[:MOST_HAD]
    listed = _listed(contest.lists[MODEL][place])
    before = _listed(contest.lists[CHAMPION][place]) if CHAMPION in contest.lists else []
    terms = bundle.scorer.terms(history, statistics[[row]])
    taken_first = sorted((int(item) for item in taken), key=lambda item: (item not in listed, item))
    return Example(
        pseudonym=pseudonym(user_ids[row].as_py(), salt=bundle.sha256),
        distinct_items=int(frequency.nnz),
        had=tuple(
            _item(bundle, int(frequency.indices[place]), note=f"{frequency.data[place]:.3g} ×") for place in most
        ),
        listed=tuple(
            _item(bundle, item, is_hit=item in taken, note=explain_from_terms(bundle, history, terms, item).sentence)
            for item in listed
        ),
        champion_listed=tuple(_item(bundle, item, is_hit=item in taken) for item in before),
        taken=tuple(_item(bundle, item, is_hit=item in listed) for item in taken_first[:MOST_TAKEN]),
        taken_in_all=len(taken),
    )


def _listed(ranked_k: np.ndarray) -> list[int]:
    return [int(item) for item in ranked_k if item != NO_ITEM]


def _item(bundle: Bundle, item: int, *, is_hit: bool = False, note: str = "") -> ExampleItem:
    if item >= len(bundle.items.item_ids):
        return ExampleItem(title="an item that the bundle does not know", category=None, is_hit=is_hit, note=note)
    return ExampleItem(
        title=bundle.items.display(item), category=bundle.items.categories[item], is_hit=is_hit, note=note
    )
