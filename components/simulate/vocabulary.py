"""Words for a shop's catalogue, read from vocabulary.toml beside this file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WORDS = Path(__file__).with_name("vocabulary.toml")


class Department(NamedTuple):
    """One aisle: its products are categories, its styles and sizes make titles."""

    name: str
    median_price: float
    """Of one item, in the shop's currency."""
    repeatability: float
    """Chance that a shopper who thinks of an item bought before takes it again."""
    products: list[str]
    styles: list[str]
    sizes: list[str]


def departments() -> list[Department]:
    return [Department(**entry) for entry in _words()["department"]]


def brand_names(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different names: Oakfield, Maple Kitchen; numbered once the words are used up."""
    words = _words()
    names = [first + last for last in words["brand_last"] for first in words["brand_first"]]
    names += [f"{first} {last}" for last in words["brand_suffix"] for first in words["brand_first"]]
    names = [names[index] for index in rng.permutation(len(names))]
    rounds = -(-count // len(names))
    numbered = [name if turn == 0 else f"{name} {turn + 1}" for turn in range(rounds) for name in names]
    return numbered[:count]


def _words() -> dict[str, Any]:
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))
