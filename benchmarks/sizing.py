"""What each step's pod and the service need: CPU-seconds, peak memory and disk, a process each.

  python -m benchmarks.sizing                            # the demo log
  python -m benchmarks.sizing --users 300 --days 60      # a simulated shop

Every step runs as its pod does, `python -m components.<step>` in a process of its own, in an empty home. The service is
started on the bundle that was made and asked once; its memory is that of its processes together, shared pages counted
once (PSS).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import write_result
from benchmarks.pipeline import SMALL, simulated_log
from components.core.command import KINDS, PIPELINE
from components.core.settings import child_environment, load_settings

# Whether a model is promoted is no matter of size, so nothing is deployed.
STEPS = [step for step in PIPELINE if step != "deploy"]
PORT_WAIT_SECONDS = 300


def main(
    users: Annotated[int | None, typer.Option(help="People of a simulated shop; left out: the demo log.")] = None,
    days: Annotated[int, typer.Option(help="Days of the simulated shop.")] = 60,
    out: Annotated[Path | None, typer.Option(help="Where to write the result. [default: benchmarks/results]")] = None,
) -> None:
    """Run every step and the service, print a table, write JSON."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="basketweave-sizing-") as name:
        folder = Path(name)
        settings = load_settings(home=folder / "home")
        environment = child_environment(settings) | {"OMP_NUM_THREADS": "1"}
        if users is not None:
            environment |= SMALL
            events, catalog = simulated_log(folder / "world", users=users, days=days, environment=environment)[1::2]
            environment |= {
                "BASKETWEAVE_SOURCE": json.dumps({"profile": "contract", "events": events, "catalog": catalog})
            }
        steps = {step: measured(step, environment, settings.artifact_root) for step in STEPS}
        bundle = next(Path(settings.artifact_root, "bundle").glob("*/manifest.json")).parent
        service = served(bundle, folder, environment)
        features = sum(file.stat().st_size for file in (settings.project_home / "feast").rglob("*") if file.is_file())
        known = json.loads(next(Path(settings.artifact_root, "features").glob("*/manifest.json")).read_text())
    table = Table("", "CPU-seconds", "peak memory MB", "artifact MB")
    for step, figures in steps.items():
        table.add_row(step, *(f"{figures[key]:,.1f}" for key in ("cpu_seconds", "peak_memory_mb", "artifact_mb")))
    table.add_row("service, one worker", f"{service['cpu_seconds']:,.1f}", f"{service['memory_mb']:,.1f}", "")
    console.print(table)
    online_users = known["statistics"]["users_online"]
    console.print(f"feature store {features / 1e6:,.1f} MB of {online_users:,} users online")
    result = {
        "world": "demo log" if users is None else {"users": users, "days": days},
        "steps": steps,
        "service": service,
        "feature_store_mb": features / 1e6,
        "users_online": online_users,
    }
    console.print(f"[dim]{write_result('sizing' if users is None else 'sizing-small', result, path=out)}[/]")


def measured(step: str, environment: dict[str, str], root: str) -> dict[str, Any]:
    """Run one step to its end; CPU and peak memory are the kernel's count of its process."""
    command = [sys.executable, "-m", f"components.{step}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{step}: {output[-2000:]}")
    kept = [Path(root, KINDS[step])]
    tables = {"ingest": "events", "validate": "clean_events"}
    kept += [Path(root, "tables", tables[step])] if step in tables else []
    size = sum(file.stat().st_size for folder in kept for file in folder.rglob("*") if file.is_file())
    return {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_mb": usage.ru_maxrss / 1024,
        "artifact_mb": size / 1e6,
    }


def served(bundle: Path, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Start the service on the bundle, ask it once, and look at its processes."""
    command = [sys.executable, "-m", "serving", "--bundle", str(bundle), "--workers", "1"]
    started = time.monotonic()
    with (folder / "service.log").open("wb") as log:
        process = psutil.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        record = folder / "home" / "demo" / "service.json"
        while not (answer := ask(record)):
            if process.poll() is not None or time.monotonic() - started > PORT_WAIT_SECONDS:
                raise SystemExit((folder / "service.log").read_text()[-2000:])
            time.sleep(0.2)
        ready_seconds = time.monotonic() - started
        family = [process, *process.children(recursive=True)]
        return {
            "memory_mb": sum(one.memory_full_info().pss for one in family) / 1e6,
            "cpu_seconds": sum(sum(one.cpu_times()[:2]) for one in family),
            "ready_seconds": ready_seconds,
            "items": len(answer["items"]),
        }
    finally:
        process.terminate()
        process.wait(30)


def ask(record: Path) -> dict[str, Any] | None:
    """An answer of the service that wrote the record, or None where it gives none yet."""
    try:
        port = json.loads(record.read_text())["port"]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/recommend", data=b'{"k": 10}', headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
    except (OSError, ValueError):
        return None
    return answer


if __name__ == "__main__":
    typer.run(main)
