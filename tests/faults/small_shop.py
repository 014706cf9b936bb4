"""A shop of sixty people over three weeks whose steps run in a process of their own, where faults can strike them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.command import PIPELINE

SCRIPT = Path(__file__).with_name("fault_process.py")
SIZE = ("--users", "60", "--items", "40", "--days", "18", "--sessions-per-user-day", "0.5", "--seed", "7")
DISK_MEGABYTES = 64
SETTINGS = {
    "SOURCE__PROFILE": "contract",
    "SPLIT__WINDOW_DAYS": "4",
    "SPLIT__TRAINING_WINDOWS": "1",
    "TRAIN__MAX_EPOCHS": "2",
    "TRAIN__EMBEDDING_DIM": "8",
    "EVALUATE__BOOTSTRAP_RESAMPLES": "100",
    "EVALUATE__MIN_USERS": "5",
    "DEPLOY__START_SERVICE": "false",
}


def make_world(folder: Path, *, environment: dict[str, str]) -> Path:
    command = [sys.executable, "-m", "components.cli", "simulate", "--out", str(folder), *SIZE]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return folder


@dataclass
class SmallShop:
    """The home of the shop, and the process that runs its steps."""

    home: Path
    kept: Path
    scratch: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]
    filler: Path | None = None

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def run(self, step: str, *options: str, **fault: Any) -> dict[str, Any]:
        """`basketweave step <step>`; `fault` is what happens to it."""
        return self.ask("run", **self._call(step, options), scratch=str(self.scratch), **fault)

    def together(self, *steps: str, **common: Any) -> list[dict[str, Any]]:
        """The steps at once, each in a process of its own."""
        runs = [{**self._call(step, ()), **common} for step in steps]
        return self.ask("together", scratch=str(self.scratch), runs=runs)["ends"]

    def _call(self, step: str, options: Sequence[str]) -> dict[str, Any]:
        return {"step": step, "options": list(options), "environment": self.environment}

    def look(self) -> dict[str, Any]:
        return self.ask("look", home=str(self.home))

    def before(self, step: str) -> None:
        """Put the home back as an undisturbed run had it before the step; MLflow's database, slow to make, is made."""
        database = {"database": str(self.kept / "evaluate" / "mlflow.db")} if step == "train" else {}
        self.ask("restore", home=str(self.home), to=str(self.kept / step), **self._filler(), **database)

    def take_tracking_database(self) -> None:
        """MLflow's database as the undisturbed run had it after training."""
        self.ask("copy", path=str(self.kept / "evaluate" / "mlflow.db"), to=str(self.home / "mlflow.db"))

    def files(self, kind: str) -> list[str]:
        """Every file of the latest artifact of the kind."""
        return self.ask("files", home=str(self.home), kind=kind)["files"]

    def last_day(self) -> str:
        self.after_all()
        return self.ask("files", home=str(self.home), kind="events")["days"][-1]

    def after_all(self) -> None:
        self.before("end")

    def empty_disk(self) -> None:
        """Take the filler away."""
        if self.filler is not None:
            self.ask("restore", home="/nonexistent/home", to="/nonexistent/kept", filler=str(self.filler))

    def _filler(self) -> dict[str, str]:
        return {"filler": str(self.filler)} if self.filler else {}

    def run_all(self) -> dict[str, dict[str, Any]]:
        """Every step undisturbed; the home before each is kept. Returns each one's end and what there was after it."""
        found = {}
        self.ask("restore", home=str(self.home), to="/nonexistent/kept")
        for step in PIPELINE:
            self.ask("keep", home=str(self.home), to=str(self.kept / step))
            end = self.run(step)
            assert end["status"] == 0, end
            seen = self.look()
            assert (seen["problems"], seen["staging"], seen["parts"]) == ([], [], []), seen
            found[step] = {**end, **seen}
        self.ask("keep", home=str(self.home), to=str(self.kept / "end"))
        return found


def disk_of(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """A small disk of the process's own, and the command that mounts it there: in a namespace, so nothing is left.

    None where neither root nor a user namespace may mount one.
    """
    disk = folder / "disk"
    disk.mkdir(parents=True)
    as_root = () if os.getuid() == 0 else ("--user", "--map-root-user")
    mount = f"mount -t tmpfs -o size={DISK_MEGABYTES}m basketweave '{disk}' && exec \"$@\""
    prefix = ("unshare", *as_root, "--mount", "sh", "-c", mount, "sh")
    can = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return (disk, prefix) if can else None


@contextmanager
def small_shop(
    folder: Path, *, world: Path, disk: Path | None = None, prefix: Sequence[str] = ()
) -> Iterator[SmallShop]:
    """The shop, its home in `disk` where one is given; `prefix` runs before the process's own command."""
    place = disk or folder
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        **{f"BASKETWEAVE_{name}": value for name, value in SETTINGS.items()},
        "BASKETWEAVE_HOME": str(place / "home"),
        "BASKETWEAVE_SOURCE__EVENTS": f"{world}/events/*.parquet",
        "BASKETWEAVE_SOURCE__CATALOG": f"{world}/catalog.parquet",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "COLUMNS": "500",
    }
    process = subprocess.Popen(
        [*prefix, sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    shop = SmallShop(
        home=place / "home",
        kept=folder / "kept",
        scratch=folder / "scratch",
        environment={name: value for name, value in environment.items() if name.startswith("BASKETWEAVE_")},
        process=process,
        filler=disk / "filler" if disk else None,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "{}\n"
        yield shop
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
