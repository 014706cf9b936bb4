"""The corpus as a table in docs/data-contract.md: what is broken, and what its reader sees.

    python tests/faults/contract_table.py    # runs the whole corpus and writes the table anew, about two minutes

tests/faults/test_corpus.py fails where a line of it is no longer true, is missing, or is of no input.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from broken_shop import BrokenInput
from corpus import CORPUS

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-contract.md"
BEGIN, END = "<!-- tests/faults/contract_table.py writes this table -->", "<!-- end of the table -->"


class Line(NamedTuple):
    """One line of the table: inputs of several forms that are answered alike share it."""

    table: str
    name: str
    forms: str
    sees: str


def in_words(case: BrokenInput, sees: str) -> tuple[str, str, str]:
    """(table, name, what is seen), the same for all forms that are answered alike."""
    file = Path(case.catalog or case.events).name
    return case.table, case.name, sees.replace(file, "FILE").replace("|", "\\|")


def lines_of(found: Iterable[tuple[BrokenInput, str]]) -> list[Line]:
    forms: dict[tuple[str, str, str], list[str]] = {}
    for case, sees in found:
        listed = forms.setdefault(in_words(case, sees), [])
        if case.form not in listed:
            listed.append(case.form)
    return [Line(table, name, ", ".join(listed), sees) for (table, name, sees), listed in forms.items()]


def read_lines() -> list[Line]:
    """The table as the document has it."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [Line(*(cell.strip() for cell in row)) for row in cells[1:]]


def write_lines(lines: Iterable[Line]) -> None:
    rows = ["| of | what is broken | as | what you see |", "|---|---|---|---|"]
    rows += [f"| {' | '.join(line)} |" for line in lines]
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n" + "\n".join(rows) + f"\n{END}{rest.partition(END)[2]}", encoding="utf-8")


class _Capture:
    """stdout and stderr of what runs meanwhile, read as pytest's capfd is read."""

    def __init__(self) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        with contextlib.redirect_stdout(self._out), contextlib.redirect_stderr(self._err):
            yield

    def readouterr(self) -> tuple[str, str]:
        found = self._out.getvalue(), self._err.getvalue()
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return found


def main() -> None:
    from looking import look

    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    found = []
    for number, case in enumerate(CORPUS, start=1):
        capture = _Capture()
        with tempfile.TemporaryDirectory() as folder, capture.taking():
            shop = Path(folder) / "shop"
            shop.mkdir()
            finding = look(case, shop, Path(folder) / "home", capture)
        found.append((case, finding.shown(case)))
        sys.stderr.write(f"\r{number} of {len(CORPUS)}")
    write_lines(lines_of(found))
    sys.stderr.write(f"\nwritten to {DOCUMENT}\n")


if __name__ == "__main__":
    main()
