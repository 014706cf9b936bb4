"""Commands of docs/operations, as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs" / "operations"


def shell_blocks(page: str) -> list[str]:
    """The page's blocks of shell commands, in order."""
    return re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def run_block(
    block: str,
    *,
    environment: Mapping[str, str],
    folder: Path,
    instead: Mapping[str, str],
    leave_out: Sequence[str] = (),
) -> str:
    """Run a block's commands in `folder`, one after the other; `instead` gives this machine's places for the page's.

    `leave_out` are commands that do not end. Returns what was printed; a command that fails fails the test.
    """
    output = []
    for line in block.strip().splitlines():
        if line in leave_out:
            continue
        command = line
        for shown, here in instead.items():
            assert shown in block or shown in {"basketweave"}, f"{shown} is not in the block"
            command = command.replace(shown, here)
        done = subprocess.run(
            command, shell=True, cwd=folder, env=dict(environment), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        output.append(done.stdout)
    return "".join(output)


BASKETWEAVE = f"{sys.executable} -m components.cli"
