"""Running the pipeline's first two steps over an input of the corpus, and saying what a person saw."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from broken_shop import QUARANTINED, REFUSED, BrokenInput, run_step, without_paths

from components.core.artifact import Artifact
from components.core.settings import load_settings
from components.core.step import latest
from components.core.store import Store


@dataclass(frozen=True)
class Finding:
    """What came of one input."""

    refused_by: str | None
    """'ingest' or 'validate'; None where both took it."""
    sentence: str
    """The refusal, or ingest's line; paths of this machine replaced."""
    kept: int = 0
    items: frozenset[str] = frozenset()
    reasons: Mapping[str, Counter[str]] = field(default_factory=dict)
    """Rows put aside by reason, a file each."""

    def shown(self, case: BrokenInput) -> str:
        """What docs/data-contract.md says of it."""
        if case.ends == REFUSED:
            return self.sentence
        if case.ends == QUARANTINED:
            aside = [f"`{file}`: {reason}" for file, reasons in self.reasons.items() for reason in sorted(reasons)]
            return f"The row is put aside in {', '.join(aside)}. {self.kept} rows are kept."
        return f"Read: {self.sentence}."


def look(case: BrokenInput, shop: Path, home: Path, capture: Any) -> Finding:
    """Make the input, ingest it, validate it. `capture` is pytest's capfd, or what reads like it."""
    case.make(shop)
    with _environment(case.environment(shop, home)):
        seen = run_step("ingest", capture)
        if seen.status != 0:
            return Finding("ingest", without_paths(seen.sentence, shop, home))
        line = without_paths(seen.out, shop, home).removeprefix("ingest ").split(" · ")
        taken = " · ".join(part for part in line if "days" not in part or "rows" in part)
        judged = run_step("validate", capture)
        if judged.status != 0:
            return Finding("validate", without_paths(judged.sentence, shop, home))
        return _taken(_without_seconds(taken), store_of(home))


def store_of(home: Path) -> Store:
    return Store(load_settings(home=home).artifact_root)


def _taken(line: str, store: Store) -> Finding:
    clean = Artifact.open(store, latest(store, "clean").uri, kind="clean")
    events = Artifact.open(store, latest(store, "events").uri, kind="events")
    clean.verify()
    reasons = {
        name: Counter(artifact.table(name)["reason"].to_pylist())
        for artifact, name in ((events, "rejects.parquet"), (clean, "quarantine.parquet"))
    }
    items = [item for path in clean.partition_paths() for item in pq.read_table(path)["item_id"].to_pylist()]
    found = {name: counted for name, counted in reasons.items() if counted}
    return Finding(None, line, kept=clean.manifest.rows, items=frozenset(items), reasons=found)


def _without_seconds(text: str) -> str:
    """Ingest's line without its time at the end."""
    return " ".join(text.split()[:-2]) if text.endswith(" s") else text


def state(home: Path) -> dict[str, str]:
    """Content hash of every file that a reader could open.

    A refused run's report stands under failed/, and what it cost under usage/.
    """
    root = Path(load_settings(home=home).artifact_root)
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in ("failed", "locks", "usage")
    }


def half_written(home: Path) -> list[str]:
    """Artifacts without their manifest, and what was left in staging."""
    root = Path(load_settings(home=home).artifact_root)
    folders = [folder for kind in ("events", "clean") for folder in (root / kind).glob("*/")]
    lacking = [folder for folder in folders if not (folder / "manifest.json").is_file()]
    return [path.relative_to(root).as_posix() for path in (*lacking, *(root / ".staging").glob("*"))]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
