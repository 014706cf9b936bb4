"""Every broken input ends in quarantine or in one sentence that says what to do; nothing hangs or is half written.

A shop that ran well yesterday stands in the home: what is refused today leaves all of it as it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from _pytest.mark.structures import ParameterSet
from broken_shop import QUARANTINED, READ, REFUSED, BrokenInput, encode, good_rows, run_step, without_paths
from contract_table import Line, in_words, read_lines
from corpus import CORPUS
from looking import half_written, look, state, store_of

from components.core.artifact import Artifact
from components.core.step import latest

# Kinds of the issue that may not fall out of the corpus, by words of their names.
NAMED = (
    "not there", "empty", "no column", "misspelt", "twice", "Latin-1", "UTF-16", "UTF-8 mark", "parquet cut",
    "parquet's footer flipped", "gzip cut", "gzip flipped", "million letters", "list or an object", "NaN", "infinite",
    "0001-01-01", "9999-12-31", "quotes", "newline", "SQL", "right-to-left", "folder named like a file",
    "links in a circle", "cannot be read", "an item twice",
)  # fmt: skip


@pytest.fixture(scope="session")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good log's home in it."""
    return tmp_path_factory.mktemp("yesterday")


@pytest.fixture
def home(yesterday: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a shop that ran well; paths within it are absolute, so each test finds it at the same place."""
    home, kept = yesterday / "home", yesterday / "kept"
    if not kept.is_dir():
        (yesterday / "before.csv").write_bytes(encode(good_rows(), "csv"))
        with monkeypatch.context() as patch:
            for name, value in (
                BrokenInput(name="", make=lambda _: None, events="before.csv", ends=READ, sees="")
                .environment(yesterday, home)
                .items()
            ):
                patch.setenv(name, value)
            assert [run_step(step, capfd).status for step in ("ingest", "validate")] == [0, 0]
        shutil.copytree(home, kept)
    shutil.rmtree(home)
    shutil.copytree(kept, home)
    return home


def named(case: BrokenInput) -> str:
    return f"{case.table} {case.form}: {case.name}"


def _cases() -> Iterator[ParameterSet]:
    """What is broken, in its first form; the same in other forms runs with the slow tests."""
    seen = set()
    for case in CORPUS:
        is_first = (case.table, case.name) not in seen
        seen.add((case.table, case.name))
        yield pytest.param(case, id=named(case), marks=[] if is_first else [pytest.mark.slow])


@pytest.mark.parametrize("case", _cases())
def test_a_broken_input_ends_in_quarantine_or_in_one_sentence(
    case: BrokenInput, home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = state(home)
    if case.may_hang:
        sentence = _in_a_process(case, tmp_path, home)
        assert case.sees in sentence
        assert state(home) == before
        return
    finding = look(case, tmp_path, home, capfd)
    assert half_written(home) == []
    if case.ends == REFUSED:
        assert finding.refused_by is not None
        assert case.sees in finding.sentence
        assert _changed(before, state(home)) <= ({"events", "tables"} if finding.refused_by == "validate" else set())
        assert Artifact.open(store_of(home), latest(store_of(home), "clean").uri).manifest.rows == 12
    else:
        assert finding.refused_by is None, finding.sentence
        reasons = [reason for counted in finding.reasons.values() for reason in counted.elements()]
        assert (finding.kept, len(reasons)) == (case.kept, case.put_aside)
        assert any(case.sees in text for text in (reasons if case.ends == QUARANTINED else [finding.sentence]))
        assert set(case.ids) <= finding.items
    assert in_words(case, finding.shown(case)) in {
        (line.table, line.name, line.sees) for line in read_lines() if case.form in line.forms.split(", ")
    }, "docs/data-contract.md says otherwise. Run: python tests/faults/contract_table.py"


@pytest.mark.slow
def test_a_bit_anywhere_in_a_parquet_file_is_a_sentence_or_another_value(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet has no checksum of its own unless it was written with one: such a bit is a value like others."""
    table = pa.Table.from_pylist(good_rows(40))
    pq.write_table(table, tmp_path / "whole.parquet", compression="zstd")
    whole = (tmp_path / "whole.parquet").read_bytes()
    case = BrokenInput(name="", make=lambda _: None, events="events.parquet", ends=REFUSED, sees="")
    for name, value in case.environment(tmp_path, home).items():
        monkeypatch.setenv(name, value)
    statuses: Counter[int] = Counter()
    for place in range(3, len(whole), 61):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        (tmp_path / "events.parquet").write_bytes(bytes(flipped))
        statuses[run_step("ingest", capfd).status] += 1
        assert half_written(home) == []
    assert statuses.keys() <= {0, 1}
    assert statuses[1] > 5


def _changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Top folders in which a file is other than before, or new."""
    return {path.split("/", 1)[0] for path, sha256 in after.items() if before.get(path) != sha256} | {
        path.split("/", 1)[0] for path in before if path not in after
    }


def _in_a_process(case: BrokenInput, shop: Path, home: Path, *, step: str = "ingest") -> str:
    """The one line on stderr of a process that ends by itself with status 1."""
    if case.may_hang or not any(shop.iterdir()):
        case.make(shop)
    environment = {**os.environ, **case.environment(shop, home)}
    command = [sys.executable, "-m", "components.cli", "step", step]
    # The time is for a busy machine; what hangs would wait for ever.
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("basketweave: ")
    return without_paths(done.stderr, shop, home)


@pytest.mark.parametrize(
    "name",
    ["a file that cannot be read", "UTF-16 with a mark", "parquet cut in the middle", "an item twice, with two titles"],
)
def test_the_command_as_a_process_says_the_same(name: str, home: Path, tmp_path: Path) -> None:
    case = next(case for case in CORPUS if case.name == name)
    before = state(home)
    assert case.sees in _in_a_process(case, tmp_path, home)
    assert state(home) == before


def test_the_corpus_has_every_kind_that_was_promised() -> None:
    bad = [case for case in CORPUS if case.ends != READ]
    assert len({(case.table, case.name) for case in bad}) >= 60
    assert Counter(case.form for case in CORPUS).keys() >= {"CSV", "JSONL", "parquet"}
    assert {case.table for case in bad} == {"log", "catalogue"}
    texts = [f"{case.name} {case.sees}" for case in CORPUS]
    assert [words for words in NAMED if not any(words in text for text in texts)] == []


def test_the_document_has_a_line_for_every_input_and_no_other() -> None:
    listed = Counter((line.table, line.name, form) for line in read_lines() for form in line.forms.split(", "))
    assert listed == Counter({(case.table, case.name, case.form): 1 for case in CORPUS})
    assert all(isinstance(line, Line) for line in read_lines())


def test_names_of_cases_are_their_own() -> None:
    names = Counter(named(case) for case in CORPUS)
    assert [name for name, count in names.items() if count > 1] == []
