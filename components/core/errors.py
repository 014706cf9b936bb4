"""Errors that a user can act on.

    BasketweaveError            one sentence that says what to do; exit status 1 (a command) or 4xx (the service)
    ├── StopError               a retry cannot help
    │   ├── SettingsError       a setting is unknown, misspelt, or out of range
    │   ├── ContractError       data that does not keep the contract of docs/data-contract.md
    │   ├── ArtifactError       an artifact is missing, incomplete, or its hash does not match
    │   └── MissingExtraError   a package of an extra is not installed; names the pip command
    ├── BusyError               another run holds the lock; a later retry can succeed
    └── FeatureStoreError       the online features cannot be read; the service goes on without them

Anything else that escapes is a defect of ours, and keeps its traceback.
"""

from __future__ import annotations


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


class FeatureStoreError(BasketweaveError):
    """The online feature store cannot be reached or read; it may be back at the next try."""
