"""One small shop for all faults that strike a step: its home on a small disk of its own where one can be mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from small_shop import SmallShop, disk_of, make_world, small_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallShop]:
    folder = tmp_path_factory.mktemp("small-shop")
    world = make_world(folder / "world", environment=dict(os.environ))
    disk, prefix = disk_of(folder) or (None, ())
    with small_shop(folder, world=world, disk=disk, prefix=prefix) as shop:
        yield shop


@pytest.fixture(scope="session")
def undisturbed(shop: SmallShop) -> dict[str, dict[str, Any]]:
    """How each step ended that nothing struck, and what a reader found after it."""
    return shop.run_all()
