"""The peers' own environment, from PyPI by `peers.txt`: their pins would not fit beside ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("peers.txt")


def peer_python() -> Path:
    """The interpreter of the environment, which is built once for each version of `peers.txt` (1.6 GB).

    uv builds it where it is there, else pip; a local folder of wheels is read from PIP_FIND_LINKS or UV_FIND_LINKS.
    """
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"basketweave-peers-{os.getuid()}" / digest
    python, mark = folder / "bin" / "python", folder / "complete"
    if mark.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    environment = dict(os.environ)
    links = environment.get("UV_FIND_LINKS") or environment.get("PIP_FIND_LINKS")
    if links:
        environment |= {"UV_FIND_LINKS": links, "PIP_FIND_LINKS": links}
    uv = shutil.which("uv")
    if uv:
        if not links:
            environment["UV_TORCH_BACKEND"] = "cpu"
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python), "--requirement", str(REQUIREMENTS)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "-qq", "--no-deps", "--requirement", str(REQUIREMENTS)],
        ]
    for command in commands:
        subprocess.run(command, check=True, env=environment)
    mark.touch()
    return python
