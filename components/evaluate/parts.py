"""The slices that every bundle is looked at in: parts of the users, and of the items that users took.

A user counts in a part of the items if something of it was taken; the recall in it is over that part of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from components.measures.interactions import Interactions
from components.measures.slices import (
    COLD_USERS,
    PRICE_BANDS,
    STRATA,
    history_slices,
    item_strata,
    largest_groups,
    price_quarters,
    targets_of,
)

Number = TypeVar("Number", bound=np.generic)

USERS, ITEMS, CATEGORY, PRICE = "users", "items bought", "category", "price band"
GROUPS: tuple[str, ...] = (USERS, ITEMS, CATEGORY, PRICE)


@dataclass(frozen=True, kw_only=True)
class ItemFacts:
    """What slices of the items are cut by, over I items of the bundle."""

    category_I: npt.NDArray[np.int64]
    """Number of the item's category, -1 for none."""
    categories: tuple[str, ...]
    """Names of the numbers."""
    price_I: npt.NDArray[np.float64]
    """nan where unknown."""

    @classmethod
    def of(cls, categories: Sequence[str | None], prices: npt.ArrayLike) -> ItemFacts:
        names = tuple(sorted({name for name in categories if name is not None}))
        code_of = {name: code for code, name in enumerate(names)}
        codes = [-1 if name is None else code_of[name] for name in categories]
        return cls(
            category_I=np.array(codes, dtype=np.int64),
            categories=names,
            price_I=np.asarray(prices, dtype=np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """A slice: whose users are members, and which of their targets count."""

    group: str
    name: str
    members_R: npt.NDArray[np.bool_]
    targets: sp.csr_matrix  # (R, I + X)


def parts_of(
    targets: sp.csr_matrix, *, rows: npt.NDArray[np.int64], known: Interactions, items: ItemFacts, categories: int
) -> Iterator[Part]:
    """Targets (R, I + X) of users `rows` (R,) of `known` -> all slices, those that nobody is in among them.

    `categories`: how many of the categories that most was taken of are slices.
    """
    width = targets.shape[1]
    popularity = np.zeros(width, dtype=np.int64)
    popularity[: len(known.popularity)] = known.popularity

    def of_items(group: str, name: str, is_member_I: npt.NDArray[np.bool_]) -> Part:
        part = targets_of(targets, is_member_I)
        return Part(group=group, name=name, members_R=np.diff(part.indptr) > 0, targets=part)

    stratum = item_strata(popularity)
    for code, name in enumerate(STRATA):
        yield of_items(ITEMS, name, stratum == code)
    yield of_items(ITEMS, f"cold (under {COLD_USERS} users)", popularity < COLD_USERS)
    for name, members in history_slices(np.diff(known.seen.indptr)[rows]).items():
        yield Part(group=USERS, name=name, members_R=members, targets=targets)
    taken = np.bincount(targets.indices, minlength=width)
    category, price = _padded(items.category_I, width, -1), _padded(items.price_I, width, np.nan)
    for code in largest_groups(category, taken, most=categories):
        yield of_items(CATEGORY, items.categories[code], category == code)
    band = price_quarters(price, taken)
    for code, name in enumerate(PRICE_BANDS):
        if (band == code).any():
            yield of_items(PRICE, name, band == code)


def _padded(values_I: npt.NDArray[Number], width: int, missing: float) -> npt.NDArray[Number]:
    """Values of the bundle's items, followed by `missing` for the items that it does not know."""
    return np.concatenate([values_I, np.full(width - len(values_I), missing, dtype=values_I.dtype)])
