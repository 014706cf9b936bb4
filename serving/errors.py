"""What a caller can do about a refused request; each message goes into the answer."""

from __future__ import annotations

from components.core.errors import BasketweaveError


class RequestError(BasketweaveError):
    """The request asks for what this bundle or this service does not offer (422)."""


class UnknownItemError(BasketweaveError):
    """The bundle has no such item (404)."""


class NotKeptError(BasketweaveError):
    """Events could not be written down (503): the caller should send them again."""
