from __future__ import annotations

from pathlib import Path

import pytest
from planted_world import World, make_world, planted_events

from components.core.step import Execution
from components.model.bundle import Bundle


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("planted"), planted_events())


@pytest.fixture(scope="session")
def planted_bundle(world: World) -> Bundle:
    return Bundle.load(Path(world.bundle().uri))


@pytest.fixture(scope="session")
def promoted(world: World) -> Execution:
    return world.evaluate(world.bundle())
