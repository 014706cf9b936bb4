"""A Dockerfile as instructions, as far as ours go: one line each, comments and continuations resolved."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    word: str  # FROM, RUN, …
    rest: str


@dataclass
class Stage:
    """From one FROM to the next."""

    image: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [one.rest for one in self.instructions if one.word == word]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for rest in self.all("ENV") for pair in shlex.split(rest)]
        return {name: value for name, _, value in pairs}

    @property
    def copies(self) -> list[tuple[list[str], str, str | None]]:
        """(sources, target, the stage that they come from) of each COPY."""
        found = []
        for rest in self.all("COPY"):
            words = shlex.split(rest)
            origin = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
            *sources, target = [word for word in words if not word.startswith("--")]
            found.append((sources, target, origin))
        return found

    def command(self, word: str) -> list[str]:
        """ENTRYPOINT or CMD in its JSON form; empty where there is none."""
        given = self.all(word)
        return json.loads(given[-1]) if given else []


def stages(path: Path) -> list[Stage]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            found.append(Stage(image, name or None))
        else:
            found[-1].instructions.append(Instruction(word, rest.strip()))
    return found
