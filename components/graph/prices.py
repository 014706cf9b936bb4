"""What customers paid for an item before a moment: its price where the catalogue names none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PaidPrices:
    """One row an event with a price, sorted by item and price: medians of any cutoff are a filter over them."""

    item_E: Ints
    price_E: npt.NDArray[np.float64]
    moment_E: Ints  # microseconds
    num_items: int

    @classmethod
    def of(cls, *, item_E: Ints, price_E: npt.NDArray[np.float64], moment_E: Ints, num_items: int) -> PaidPrices:
        """Events in any order; nan where no price is known."""
        known = np.flatnonzero(~np.isnan(price_E))
        # One integer an event sorts several times faster than two columns; a shop has few different prices.
        code, values = pd.factorize(price_E[known])
        place = np.empty(len(values), dtype=np.int64)
        place[np.argsort(values)] = np.arange(len(values))
        key = torch.from_numpy(item_E[known] * (len(values) + 1) + place[code])
        order = known[torch.argsort(key, stable=True).numpy()]
        return cls(item_E[order], price_E[order], moment_E[order], num_items)

    def medians(self, *, before_us: int) -> Floats:
        """(I,) nan where nothing was paid before the moment."""
        chosen = self.moment_E < before_us
        item, price = self.item_E[chosen], self.price_E[chosen]
        count_I = np.bincount(item, minlength=self.num_items)
        first_I = np.cumsum(count_I) - count_I
        median_I = np.full(self.num_items, np.nan, dtype=np.float32)
        sold = np.flatnonzero(count_I)
        low, high = first_I[sold] + (count_I[sold] - 1) // 2, first_I[sold] + count_I[sold] // 2
        median_I[sold] = (price[low] + price[high]) / 2
        return median_I
