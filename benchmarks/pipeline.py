"""What orchestration costs: CPU-seconds of a whole `basketweave run`, beside those of its steps.

  python -m benchmarks.pipeline                            # the demo log, as `make demo` runs it
  python -m benchmarks.pipeline --users 300 --days 60      # a simulated shop, in a minute or two

The run is a process of its own in an empty home, once afresh and once again, when every finished step is reused. Its
CPU is the kernel's count for it and all the children that it waited for; the service that it leaves running is no part
of either side. Steps count what they count themselves (components/core/usage.py); loading their libraries, which under
Airflow happens before a step's watch starts, is measured in a process of its own and is no orchestration.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import cpu_seconds, write_result
from components.core.command import PIPELINE
from components.core.settings import child_environment, load_settings
from components.core.store import Store
from components.core.usage import usage_of_runs

TARGET_SHARE = 0.15
NOT_PROMOTED = 3  # exit status of a run that the gate refused: no small world shows the lead that it asks for
LOAD = "import sys; from components.core.command import load_step; [load_step(name) for name in sys.argv[1:]]"
SMALL = {
    "BASKETWEAVE_SPLIT__WINDOW_DAYS": "14",
    "BASKETWEAVE_SPLIT__TRAINING_WINDOWS": "1",
    "BASKETWEAVE_TRAIN__MAX_EPOCHS": "2",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """CPU-seconds of one run."""

    name: str
    total: float
    steps: float
    libraries: float
    """Loading the libraries of the steps that ran."""
    outcome: str

    @property
    def orchestration(self) -> float:
        return max(self.total - self.steps - self.libraries, 0.0)

    @property
    def share(self) -> float:
        return self.orchestration / self.total


def main(
    users: Annotated[int | None, typer.Option(help="People of a simulated shop; left out: the demo log.")] = None,
    days: Annotated[int, typer.Option(help="Days of the simulated shop.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Where to write the result. [default: benchmarks/results]")] = None,
) -> None:
    """Measure both runs, print a table, write JSON."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="basketweave-pipeline-") as name:
        folder = Path(name)
        environment = child_environment(load_settings(home=folder / "home"))
        log: list[str] = []
        if users is not None:
            environment |= SMALL
            log = simulated_log(folder / "world", users=users, days=days, environment=environment)
        libraries = cpu_of([sys.executable, "-c", LOAD, *PIPELINE], environment)[0]
        try:
            runs = [measured(name, log, folder, environment, libraries) for name in ("afresh", "again, all reused")]
        finally:
            command = [sys.executable, "-m", "components.cli", "stop"]
            subprocess.run(command, env=environment, check=False, capture_output=True)
    table = Table("run", "total", "steps", "libraries", "orchestration", "share", "ended as", title="CPU-seconds")
    for run in runs:
        seconds = [f"{value:.1f}" for value in (run.total, run.steps, run.libraries, run.orchestration)]
        table.add_row(run.name, *seconds, f"{run.share:.1%}", run.outcome)
    console.print(table)
    fresh = runs[0]
    verdict = "under" if fresh.share < TARGET_SHARE else "not under"
    console.print(f"Orchestration is {fresh.share:.1%} of a fresh run's CPU-seconds, {verdict} {TARGET_SHARE:.0%}.")
    result = {
        "world": "demo log" if users is None else {"users": users, "days": days},
        "target_share": TARGET_SHARE,
        "runs": [{**asdict(run), "orchestration": run.orchestration, "share": run.share} for run in runs],
    }
    console.print(f"[dim]{write_result('pipeline' if users is None else 'pipeline-small', result, path=out)}[/]")


def simulated_log(world: Path, *, users: int, days: int, environment: dict[str, str]) -> list[str]:
    size = ["--users", str(users), "--items", str(max(users // 2, 200)), "--days", str(days), "--seed", "7"]
    command = [sys.executable, "-m", "components.cli", "simulate", "--out", str(world), *size]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return ["--events", f"{world}/events/*.parquet", "--catalog", f"{world}/catalog.parquet"]


def measured(name: str, log: list[str], folder: Path, environment: dict[str, str], libraries: float) -> Run:
    store = Store(load_settings(home=folder / "home").artifact_root)
    before = set(usage_of_runs(store))
    total, returncode = cpu_of([sys.executable, "-m", "components.cli", "run", *log], environment)
    runs = {run_id: steps for run_id, steps in usage_of_runs(store).items() if run_id not in before}
    if len(runs) != 1:
        raise SystemExit(f"The run left the usage of {len(runs)} runs; see {folder}.")
    [steps] = runs.values()
    # A run that the gate refused has no deploy; its libraries are few, and counting them favours orchestration.
    return Run(
        name=name,
        total=total,
        steps=sum(step.cpu_seconds for step in steps),
        libraries=libraries,
        outcome=f"{len(steps)} steps, status {returncode}",
    )


def cpu_of(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """(CPU-seconds of the command and the children that it waited for, its exit status)."""
    before = cpu_seconds()
    own = sum(os.times()[:2])
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode not in (0, NOT_PROMOTED):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return cpu_seconds() - before - (sum(os.times()[:2]) - own), done.returncode


if __name__ == "__main__":
    typer.run(main)
