"""Errors that a user can act on.

    BasketweaveError            one sentence that says what to do; exit status 1 (a command) or 4xx (the service)
    ├── StopError               a retry cannot help
    │   ├── SettingsError       a setting is unknown, misspelt, or out of range
    │   ├── ContractError       data that does not keep the contract of docs/data-contract.md
    │   ├── ArtifactError       an artifact is missing, incomplete, or its hash does not match
    │   └── MissingExtraError   a package of an extra is not installed; names the pip command
    ├── BusyError               another run holds the lock; a later retry can succeed
    ├── DiskFullError           no space was left; a later retry can succeed
    └── FeatureStoreError       the online features cannot be read; the service goes on without them

Anything else that escapes is a defect of ours, and keeps its traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

# What the operating system, SQLite, and libraries that keep no error number say of a full disk.
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
NO_SPACE_WORDS = ("no space left", "disk is full", "disk quota exceeded")


class BasketweaveError(Exception):
    """Base of all errors whose message is meant for the user."""


class StopError(BasketweaveError):
    """The same call would fail again: orchestrators must not retry."""


class SettingsError(StopError):
    """A setting is unknown, misspelt or out of range."""


class ContractError(StopError):
    """Data breaks the contract as a whole (single bad rows go to quarantine instead)."""


class ArtifactError(StopError):
    """An artifact is missing, incomplete or corrupt."""


class MissingExtraError(StopError):
    """A role's packages are not installed."""

    def __init__(self, *, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Run: pip install 'basketweave[{extra}]'")


class BusyError(BasketweaveError):
    """Somebody else is writing the same thing."""


class DiskFullError(BasketweaveError):
    """No space is left where something had to be written."""


class FeatureStoreError(BasketweaveError):
    """The online feature store cannot be reached or read; it may be back at the next try."""


class WouldWaitError(Exception):
    """What was asked for at once would have to wait for somebody: a lock, or a server."""


@contextmanager
def full_disk_as_sentence(what: str, *, root: str) -> Iterator[None]:
    """Turn whatever a library raises when no space is left into one DiskFullError about `what`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, BasketweaveError) or not is_full_disk(error):
            raise
        raise DiskFullError(
            f"The disk is full, so {what} stopped and nothing of it was kept. "
            f"Free some space under {root} (and in the temporary folder), then run it again."
        ) from error


def is_full_disk(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says that no space was left."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno in NO_SPACE:
            return True
        if any(words in str(one).lower() for words in NO_SPACE_WORDS):
            return True
        one = one.__cause__ or one.__context__
    return False
