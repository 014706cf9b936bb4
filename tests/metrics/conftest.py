"""The watched shop, made once: about two minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from watched_rules import chart_rules
from watched_shop import WatchedShop, force_every_outcome, watched_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedShop]:
    """With everything counted at least once."""
    with watched_shop(tmp_path_factory.mktemp("watched"), rules=chart_rules()) as shop:
        force_every_outcome(shop)
        yield shop
