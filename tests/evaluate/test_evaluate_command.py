from __future__ import annotations

import os
import subprocess
import sys

from planted_world import World


def evaluate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.evaluate", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_judges_the_given_bundle_and_prints_one_line(world: World) -> None:
    given = {"clean": world.clean, "features": world.features, "graph": world.graph, "bundle": world.bundle()}
    completed = evaluate(
        *(part for kind, ref in given.items() for part in ("--input", f"{kind}={ref.uri}@{ref.sha256}")),
        BASKETWEAVE_HOME=str(world.settings.home),
        COLUMNS="300",
        BASKETWEAVE_EVALUATE__MAX_BASELINE_RATIO="1000",
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    (line,) = completed.stdout.splitlines()
    assert line.startswith("evaluate  recall@20 .")
    assert "verdict promote" in line
