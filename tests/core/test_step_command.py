"""The command of one step, as a process: mistakes are one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.command import parse_input
from components.core.errors import SettingsError


def run(room: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"components.{room}", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--as-of", "yesterday"], {}, "'yesterday' is not a time."),
        (["--input", "clean"], {}, "--input 'clean' is not KIND=URI@SHA256"),
        ([], {"BASKETWEAVE_GRAPH__PRICE_BAND": "4"}, "Did you mean 'BASKETWEAVE_GRAPH__PRICE_BANDS'?"),
    ],
    ids=["time", "input", "setting"],
)
def test_a_mistake_is_one_sentence_and_status_1(
    arguments: list[str], environment: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    done = run("graph", *arguments, BASKETWEAVE_HOME=str(tmp_path), **environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("python -m components.graph: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_input_is_kind_place_and_hash() -> None:
    kind, ref = parse_input("graph=s3://bucket/a=b@c/graph/ab12@9ac0")
    assert (kind, ref.uri, ref.sha256) == ("graph", "s3://bucket/a=b@c/graph/ab12", "9ac0")
    for text in ("graph", "graph=/place", "/place@9ac0"):
        with pytest.raises(SettingsError, match="is not KIND=URI@SHA256"):
            parse_input(text)
