"""What is in C: compiled once, whole or not at all, and never older than its source."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest

from components.model import compiled

TWICE = "int twice(int number) { return 2 * number; }\n"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    needs.program("cc", package="gcc")
    monkeypatch.setattr(compiled, "SOURCES", tmp_path)
    compiled.library.cache_clear()
    (tmp_path / "twice.c").write_text(TWICE)
    yield tmp_path
    compiled.library.cache_clear()


def test_a_library_is_of_its_source_and_no_other(sources: Path) -> None:
    [first] = compiled.compile_all("cc")
    assert ctypes.CDLL(str(first)).twice(4) == 8
    made_at = first.stat().st_mtime_ns
    assert compiled.compile_all("cc") == [first]
    assert first.stat().st_mtime_ns == made_at
    (sources / "twice.c").write_text(TWICE.replace("2 *", "3 *"))
    [second] = compiled.compile_all("cc")
    assert ctypes.CDLL(str(second)).twice(4) == 12
    assert sorted(sources.iterdir()) == sorted([sources / "twice.c", second])


def test_what_is_not_built_or_cannot_be_loaded_is_said_once(sources: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        assert compiled.library("twice") is None
    assert [record.getMessage() for record in caplog.records] == [
        "twice.c is not compiled (no compiler was there when Basketweave was installed): what it does takes several "
        "times longer. Install a C compiler (Debian: apt-get install gcc libc6-dev) and run: "
        "python -m components.model.compiled"
    ]
    compiled.library.cache_clear()
    compiled.library_path("twice").write_bytes(b"of another machine")
    assert compiled.library("twice") is None
    assert "invalid ELF header" in caplog.records[-1].getMessage() or "too short" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("no-such-compiler", "There is no C compiler 'no-such-compiler'. Install one (Debian: apt-get install gcc"),
        ("false", "false cannot compile twice.c"),
        ("cc -include nowhere.h", "nowhere.h: No such file"),
    ],
)
def test_without_a_compiler_nothing_is_left_and_one_sentence_is_said(
    sources: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, said: str
) -> None:
    monkeypatch.setattr("sys.argv", ["compiled", "--compiler", compiler])
    with pytest.raises(SystemExit) as stopped:
        compiled.main()
    assert said in str(stopped.value)
    assert str(stopped.value).endswith("Without it, batches of users are ranked one by one.")
    assert [path.name for path in sources.iterdir()] == ["twice.c"]
