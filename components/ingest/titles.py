"""`readable`: shop codes in capitals become words that a person reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_UNCLOSED = re.compile(r"\s*\([^)]*$")


def readable(abbreviations: Mapping[str, str]) -> Callable[[str], str]:
    """A function: 'FRZN BRD STICK/PORTON' -> 'Frozen Breaded Stick/Porton'."""
    words = {short.upper(): long for short, long in abbreviations.items()}

    def write_out(match: re.Match[str]) -> str:
        word = match.group()
        return " ".join(part[0].upper() + part[1:].lower() for part in words.get(word.upper(), word).split())

    def title(text: str) -> str:
        # The source cuts names at a fixed width, often inside a bracket.
        whole = _UNCLOSED.sub("", text) or text
        spaced = re.sub(r"\s*([:;,])\s*", r"\1 ", whole.replace("(", " (").replace(")", ") "))
        return " ".join(_WORD.sub(write_out, spaced).split())

    return title
