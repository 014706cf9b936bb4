"""What an answer of the service costs, beside a bare FastAPI and numpy handler, in one run on one machine.

    python -m benchmarks.serving                   # builds the bundles once: minutes for 100 k items, many for 1 M
    python -m benchmarks.serving --quick           # 2 k items, some seconds a case, for a look
    python -m benchmarks.serving --cases cpu memory
    python -m benchmarks.serving --cache FOLDER    # where logs and bundles are kept [~/.cache/basketweave-bench]

CPU-seconds are of a server's whole process tree, so what else the machine does changes them little; latencies are of
an open loop, from the moment that a request was due, and are compared within one run alone.

Prints tables and writes benchmarks/results/serving.json.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine, write_result
from benchmarks.serving import cases, worlds

LIBRARIES = ("bentoml", "fastapi", "starlette", "pydantic", "uvicorn", "numpy", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=cases.CASES, default=list(cases.CASES))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "basketweave-bench")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a load")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    console = Console(width=120)
    size = worlds.SMALL if given.quick else worlds.HUNDRED_THOUSAND
    built = worlds.build(size, given.cache)
    bench = cases.Bench(
        built=built,
        other=lambda: worlds.build(dataclasses.replace(size, seed=7), given.cache),
        million=lambda: worlds.build(worlds.SMALL if given.quick else worlds.MILLION, given.cache),
        logs=given.cache / "server-logs",
        seconds=3.0 if given.quick else given.seconds,
    )
    result: dict[str, Any] = {"items": size.items, "world": built.facts, "cases": {}}
    for name in given.cases:
        console.print(f"[dim]{name} …[/]")
        result["cases"][name] = getattr(bench, name)()
        console.print(as_table(name, result["cases"][name]))
    machine = describe_machine(LIBRARIES)
    console.print(f"{machine['processor']}, {machine['cores']} cores, load {machine['load_average']}")
    console.print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    if not given.quick:
        target = write_result("serving", {**result, "libraries": machine["versions"]})
        console.print(f"written to {target}")


def as_table(name: str, rows: dict[str, Any]) -> Table:
    table = Table(title=cases.CASES[name], title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for label, value in rows.items():
        table.add_row(label, f"{value:,.3f}" if isinstance(value, float) else str(value))
    return table


if __name__ == "__main__":
    main()
