"""What a test needs of the machine: skipped where it is missing, failed in CI, where everything must be there."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, *, package: str) -> str:
    """Path of a program that a Debian package brings."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed; Debian's package '{package}' has it")
    return found
