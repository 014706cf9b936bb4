"""What the catalogue says of items, as integer codes: the input of content vectors and of affinities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

UNKNOWN = 0  # code 0 of every attribute


@dataclass(frozen=True)
class ItemAttributes:
    """Codes of I items under A attributes; code 0 means unknown."""

    names: tuple[str, ...]  # A names: category, brand, price_band, product_type, …
    codes_IA: Tensor  # (I, A) int64
    sizes: tuple[int, ...]  # values of each attribute, the unknown one included
    affinity_names: tuple[str, ...]  # the attributes that a taste can be had for
    vocabularies: tuple[tuple[str, ...], ...] = ()  # value n of an attribute has code n + 1

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[Any]], *, num_items: int, affinity_names: Sequence[str]
    ) -> ItemAttributes:
        """Columns of I values each, None where unknown. Codes follow the sorted values: equal data, equal codes."""
        codes, sizes, vocabularies = [], [], []
        for values in columns.values():
            known = sorted({value for value in values if value is not None})
            code_of = {value: code for code, value in enumerate(known, start=1)}
            codes.append([UNKNOWN if value is None else code_of[value] for value in values])
            sizes.append(len(known) + 1)
            vocabularies.append(tuple(str(value) for value in known))
        stacked = np.array(codes, dtype=np.int64).T if codes else np.zeros((num_items, 0), dtype=np.int64)
        codes_IA = torch.from_numpy(np.ascontiguousarray(stacked))
        return cls(tuple(columns), codes_IA, tuple(sizes), tuple(affinity_names), tuple(vocabularies))

    def codes(self, name: str) -> Tensor:
        """(I,) int64."""
        return self.codes_IA[:, self.names.index(name)]

    def size(self, name: str) -> int:
        return self.sizes[self.names.index(name)]

    def to(self, device: torch.device) -> ItemAttributes:
        return replace(self, codes_IA=self.codes_IA.to(device))
