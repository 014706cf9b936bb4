"""A benchmark's command takes the whole process for its own; a test gives it back as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A bundle's last bits depend on torch's number of threads, which later tests compare."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
