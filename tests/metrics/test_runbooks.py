"""Each runbook's commands, run as they stand on a small watched shop."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from needs import program
from watched_shop import LENIENT_RUN, WatchedShop

RUNBOOKS = Path(__file__).parents[2] / "docs" / "operations" / "runbooks.md"
HEADING, BLOCK = re.compile(r"^## (\w+)$", re.MULTILINE), re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> dict[str, list[str]]:
    """Alert -> the lines of its `sh` blocks."""
    parts = HEADING.split(RUNBOOKS.read_text())[1:]
    return {
        alert: [line for block in BLOCK.findall(text) for line in block.splitlines() if line.strip()]
        for alert, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.fixture(scope="module")
def shell(shop: WatchedShop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `basketweave` is this checkout's, with the gate that a small world can pass."""
    program("promtool", package="prometheus")
    program("curl", package="curl")
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "basketweave"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(LENIENT_RUN))} "$@"\n')
    command.chmod(0o755)
    return {
        **shop.environment,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "SERVICE": shop.service.url,
        "PROMETHEUS": shop.prometheus.url,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def test_every_runbook_has_commands_and_says_which_panel() -> None:
    text = RUNBOOKS.read_text()
    sections = dict(zip(HEADING.split(text)[1::2], HEADING.split(text)[2::2], strict=True))
    assert len(sections) >= 12
    for alert, lines in commands().items():
        assert lines, alert
        assert re.search(r"Panels?:\s", sections[alert]), alert


def test_the_panels_that_runbooks_name_exist() -> None:
    from charts.dashboards.__main__ import BOARDS

    titles = {panel.title for board in BOARDS for row in board.rows for panel in row.panels}
    for sentence in re.findall(r"Panels?:\s([^.]*)\.", RUNBOOKS.read_text()):
        named = [re.sub(r"\s+", " ", name) for name in re.findall(r"\*([^*]+)\*", sentence)]
        assert named, sentence
        assert set(named) <= titles, sentence


@pytest.mark.slow
@pytest.mark.parametrize("alert", sorted(commands()))
def test_a_runbooks_commands_work_as_they_stand(alert: str, shell: dict[str, str], tmp_path: Path) -> None:
    for line in commands()[alert]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            env=shell,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip(), line
