from __future__ import annotations

from pathlib import Path

import pytest
from two_steps import Steps

from components.core.settings import Settings, load_settings
from components.core.store import Store


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def store(shop: Settings) -> Store:
    return Store(shop.artifact_root)


@pytest.fixture
def steps(shop: Settings) -> Steps:
    return Steps(shop)
