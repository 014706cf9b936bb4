from __future__ import annotations

import pytest
from planted_world import World, make_world, planted_events

from components.core.step import Execution


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("planted"), planted_events())


@pytest.fixture(scope="session")
def promoted(world: World) -> Execution:
    return world.evaluate(world.bundle())
