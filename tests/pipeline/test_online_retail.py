"""The dirty real log, from its file to a promoted model: what `--profile online_retail --data …` does for a user."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(os.environ.get("BASKETWEAVE_DATA", "../shared/data")).absolute() / "online_retail"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no online_retail log here: set BASKETWEAVE_DATA to the data folder")
def test_the_dirty_log_ends_in_a_promoted_model_and_its_defects_are_printed(tmp_path: Path) -> None:
    environment = os.environ | {"BASKETWEAVE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "components.cli"]
    arguments = ["run", "--profile", "online_retail", "--data", str(DATA)]
    try:
        run = subprocess.run(
            [*command, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
    finally:
        subprocess.run([*command, "stop"], env=environment, cwd=tmp_path, capture_output=True, timeout=60)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "525,461 rows = 502,119 kept + 6,865 duplicates + 16,477 quarantined" in run.stdout
    printed = dict(re.findall(r"^ +([\d,]+)  (\w+)", run.stdout, flags=re.MULTILINE))
    assert {"107,927", "6,865", "10,206", "3,690", "666", "3,097"} <= set(printed)
    (verdict,) = (tmp_path / "home").glob("*/artifacts/evaluation/*/verdict.json")
    assert json.loads(verdict.read_text())["verdict"] == "promote"
