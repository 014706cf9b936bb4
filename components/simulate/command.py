"""The command line of the simulator; `basketweave simulate` registers the same function."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option(help="Folder to write events/, catalog.parquet and key.json to.")],
    users: Annotated[int, typer.Option(help="People who shop.")] = 400,
    items: Annotated[int, typer.Option(help="Items in the catalogue at the end.")] = 300,
    days: Annotated[int, typer.Option(help="Days of log.")] = 120,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.")] = 7,
    start: Annotated[str, typer.Option(help="First day (ISO date).")] = "2024-01-01",
    sessions_per_user_day: Annotated[float, typer.Option(help="Mean visits of a person a day.")] = 0.2,
    rating_share: Annotated[float, typer.Option(help="Share of purchases that are rated; 0: no column rating.")] = 0.0,
    defects: Annotated[
        list[str] | None, typer.Option("--defect", help="KIND=RATE to plant, such as duplicate=0.01; may be repeated.")
    ] = None,
    drifts: Annotated[
        list[str] | None,
        typer.Option("--drift", help="KIND@DAY=SIZE to plant from a day on, such as price@60=0.3; may be repeated."),
    ] = None,
) -> None:
    """Write a made-up shop's log, a day at a time, with a key that says what is true and what was planted."""
    from rich.console import Console

    from components.core.errors import SettingsError
    from components.core.progress import Progress
    from components.simulate.settings import parse_defects, parse_drifts, world_settings
    from components.simulate.writer import simulate

    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out} is a file. Name a folder.")
    world = world_settings(
        users=users,
        items=items,
        days=days,
        seed=seed,
        start=start,
        sessions_per_user_day=sessions_per_user_day,
        rating_share=rating_share,
        defects=parse_defects(defects or []),
        drifts=parse_drifts(drifts or []),
    )
    started = time.monotonic()
    key = simulate(world, out, progress=Progress())
    seconds = time.monotonic() - started
    console = Console()
    console.print(
        f"[bold]simulate[/]  {key.rows:,} events of {users:,} people and {items:,} items in {days} days  "
        f"[dim]{seconds:.1f} s[/]",
        highlight=False,
    )
    for kind, rows in key.planted_rows.items():
        console.print(f"  planted {kind}: {rows:,} rows", highlight=False)
    console.print(
        f"Next: basketweave run --events '{out}/events/*.parquet' --catalog {out}/catalog.parquet "
        f"--as-of {key.as_of:%Y-%m-%d}",
        highlight=False,
        soft_wrap=True,
    )
