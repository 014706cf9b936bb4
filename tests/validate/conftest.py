"""Fixtures of the validate tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from judged_log import JudgedShop


@pytest.fixture
def shop(tmp_path: Path) -> JudgedShop:
    return JudgedShop(tmp_path)
