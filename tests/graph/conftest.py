from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_log import worlds

from components.graph.world import ItemWorld


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., ItemWorld]:
    """world(events, catalog) -> the items as of CUTOFF."""
    return lambda *rows, **options: worlds(tmp_path, *rows, **options)[-1]
