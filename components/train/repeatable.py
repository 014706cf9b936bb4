"""Equal bits from equal runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def repeatable() -> Iterator[None]:
    """torch's deterministic algorithms, as long as the block runs.

    Without them two threads add to one place in whatever order they come by: sums by index, and gradients of rows that
    are read more than once, then differ in their last bits from run to run. Where a kernel knows no such order (some on
    CUDA) torch goes on without; the sparse product takes one that does (components/model/propagation.py).
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
