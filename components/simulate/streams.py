"""Randomness by name: each part of the world draws from its own stream, so planting a defect moves nobody's tastes."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from components.simulate.settings import WorldSettings


class Stream(IntEnum):
    """Numbers are part of the format: a new stream takes a new number."""

    CATALOG = 1
    POPULATION = 2
    MARKET = 3
    TASTES = 4
    BEHAVIOUR = 5
    DEFECTS = 6
    DRIFT = 7
    CLICKS = 8
    RATINGS = 9


def generator(settings: WorldSettings, stream: Stream, *parts: int) -> np.random.Generator:
    """`parts` name the day, the batch, …"""
    return np.random.default_rng([settings.seed, int(stream), *parts])
