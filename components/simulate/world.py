"""The world as an object: live a day, look at its truth. `simulate` writes it to files; closed loops drive it."""

from __future__ import annotations

from collections.abc import Iterator

from components.simulate.behaviour import Batch, live_day
from components.simulate.catalog import make_catalog
from components.simulate.market import Market, Shelf
from components.simulate.population import Population
from components.simulate.settings import WorldSettings


class World:
    """Days are lived in order, each once."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        self.catalog = make_catalog(settings)
        self.market = Market(settings, self.catalog)
        self.population = Population(settings, self.catalog)
        self.shelf: Shelf | None = None
        """The offer of the day that was opened last."""
        self._next_day = 0

    def live_day(self) -> Iterator[Batch]:
        """The next day's events, a batch at a time, in order of session starts. Read it to the end."""
        day = self._next_day
        self._next_day += 1
        self.shelf = self.market.open_day(day)
        self.population.live_day(day, self.shelf)
        yield from live_day(self.settings, self.catalog, self.population, self.shelf, day)
