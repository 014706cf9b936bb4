"""How figures are written, in the report, the model card and the summary line alike."""

from __future__ import annotations

import math

MISSING = "–"


def figure(value: float | None) -> str:
    """A metric between 0 and 1: .0379."""
    return _without_zero(_format(value, ".4f"))


def signed(value: float | None) -> str:
    """A difference: +.0053."""
    return _without_zero(_format(value, "+.4f"))


def percent(value: float | None) -> str:
    return _format(value, ".1%")


def number(value: float | None) -> str:
    return _format(value, ".2f")


def plain(value: float | None) -> str:
    """Whole numbers as they are, others like a metric."""
    is_whole = value is not None and math.isfinite(value) and value == int(value) and abs(value) >= 1
    return _format(value, ",.0f") if is_whole else figure(value)


def count(value: int) -> str:
    return f"{value:,}"


def _format(value: float | None, how: str) -> str:
    return MISSING if value is None or not math.isfinite(value) else format(value, how).replace("-", "−")


def _without_zero(text: str) -> str:
    return text.replace("0.", ".", 1) if text.lstrip("+−").startswith("0.") else text
