"""A small JSON file that only saves work: what it says is true or it says nothing.

Its own hash stands in it. One that is gone, cut short or has a bit flipped is read as None, and whoever asks makes
anew what it named.
"""

from __future__ import annotations

from typing import Any

from components.core.hashing import json_sha256
from components.core.store import Store


def read_shortcut(store: Store, relative: str) -> Any | None:
    """What was written last; None where there is nothing that can be believed."""
    if not store.exists(relative):
        return None
    try:
        record = store.read_json(relative)
        return record["value"] if record["sha256"] == json_sha256(record["value"]) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_shortcut(store: Store, relative: str, value: Any) -> None:
    """Replace it whole. `value` is of plain JSON types."""
    store.write_json(relative, {"sha256": json_sha256(value), "value": value})
