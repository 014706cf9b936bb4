"""The recipe, frozen, on worlds that it was not made on: run once, whatever comes is published.

    python -m benchmarks.quality.other_worlds

Two simulated shops of other shapes than the demo log's (`components/simulate`): a fashion shop where people look much,
come seldom and half of the catalogue is new within the log, and a corner shop where few items are bought again and
again. The pipeline's steps run on each with the project's defaults; the contest is that of
`python -m benchmarks.quality.rolling_months`, for the last month alone. Prints a table a world and writes
benchmarks/results/quality-other_worlds.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.machine import cpu_seconds, write_result
from benchmarks.quality.rolling_months import as_table, measure_month, summarise
from components.simulate.settings import WorldSettings
from components.simulate.writer import simulate

WORLDS = {
    "fashion shop": WorldSettings(
        users=6000,
        items=8000,
        days=150,
        seed=11,
        sessions_per_user_day=0.12,
        views_per_session=9,
        repeat_share=0.05,
        new_items_share=0.5,
        later_users_share=0.4,
        anonymous_share=0.3,
    ),
    "corner shop": WorldSettings(
        users=1500,
        items=1200,
        days=150,
        seed=12,
        sessions_per_user_day=0.4,
        views_per_session=5,
        repeat_share=0.5,
        new_items_share=0.1,
        taste_change_per_day=0.001,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(2)
    console = Console(stderr=True)
    reports = {}
    for name, world in WORLDS.items():
        with tempfile.TemporaryDirectory(prefix="basketweave-world-") as folder:
            log = Path(folder) / "log"
            simulate(world, log)
            source = {
                "BASKETWEAVE_SOURCE__PROFILE": "contract",
                "BASKETWEAVE_SOURCE__EVENTS": f"{log}/events/*.parquet",
                "BASKETWEAVE_SOURCE__CATALOG": f"{log}/catalog.parquet",
            }
            month = measure_month(Path(folder) / "home", world.as_of, seeds=given.seeds, source=source, console=console)
        reports[name] = summarise([month]) | {"world": json.loads(world.model_dump_json()), "seeds": given.seeds}
        Console().print(as_table(reports[name], name))
    write_result("quality-other_worlds", reports | {"cpu_seconds": round(cpu_seconds(), 1)}, path=given.out)


if __name__ == "__main__":
    main()
