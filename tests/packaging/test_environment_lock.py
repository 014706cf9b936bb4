"""The environment is the lock's: whole, consistent, and of the asked build of torch."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("cpu", "cuda")


def pins(kind: str) -> dict[str, str]:
    lines = (ROOT / "locks" / f"{kind}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def built_for() -> str:
    """What `make` built this environment for: cpu or cuda."""
    stamp = Path(sys.prefix) / "basketweave-lock.sha256"
    return stamp.read_text().split()[0] if stamp.exists() else "cpu"


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_is_plain_pins_of_releases_and_nothing_else(kind: str) -> None:
    lines = (ROOT / "locks" / f"{kind}.txt").read_text().splitlines()
    odd = [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==([0-9]+!)?[0-9][0-9A-Za-z.]*", line)]
    assert odd == []
    assert lines == sorted(set(lines), key=lambda line: line.split("==")[0])


def test_both_locks_agree_but_for_what_cuda_adds() -> None:
    cpu, cuda = pins("cpu"), pins("cuda")
    assert {name: cuda.get(name) for name in cpu} == cpu
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in set(cuda) - set(cpu))


def test_the_environment_holds_every_pin() -> None:
    wrong = {}
    for name, version in pins(built_for()).items():
        try:
            found = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != version:
            wrong[name] = (version, found)
    assert wrong == {}, "Bring the environment up to the lock: make venv"


def test_no_package_misses_what_it_needs() -> None:
    # As `pip check`, which an environment that uv made does not hold.
    found = {canonicalize_name(one.name): one.version for one in metadata.distributions()}
    unmet = [
        f"{one.name} needs {needed}, found {found.get(canonicalize_name(needed.name))}"
        for one in metadata.distributions()
        for needed in map(Requirement, one.requires or ())
        if (needed.marker is None or needed.marker.evaluate({"extra": ""}))
        and (
            canonicalize_name(needed.name) not in found
            or not needed.specifier.contains(found[canonicalize_name(needed.name)], prereleases=True)
        )
    ]
    assert unmet == []


def test_torch_is_the_build_that_was_asked_for() -> None:
    import torch

    assert (torch.version.cuda is None) == (built_for() == "cpu")


def install(venv: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "locks" / "install.sh"],
        env={**os.environ, "VENV": str(venv), "NO_UV": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_python_is_refused_in_one_sentence_before_anything_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    done = install(tmp_path / "venv", PYTHON="/bin/false")
    assert done.returncode == 1
    assert done.stderr.startswith("Basketweave needs Python 3.11, and '/bin/false' is not it.")
    assert (tmp_path / "venv").is_dir()


def test_an_unknown_build_of_torch_is_refused(tmp_path: Path) -> None:
    done = install(tmp_path / "venv", TORCH="tpu")
    assert (done.returncode, done.stderr) == (1, "TORCH=tpu is not known. Use TORCH=cpu or TORCH=cuda.\n")


def test_a_whole_environment_is_left_alone(tmp_path: Path) -> None:
    lock = (ROOT / "locks" / "cpu.txt").read_bytes()
    stamp = tmp_path / "basketweave-lock.sha256"
    stamp.write_text(f"cpu {hashlib.sha256(lock).hexdigest()}\n")
    done = install(tmp_path, TORCH="cpu")
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == [stamp.name]
