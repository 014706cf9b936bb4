"""How often does the monitor cry wolf, and how soon does it see a drift? On simulated shops that know the answer.

    .venv/bin/python -m benchmarks.drift                    (make bench-drift)
    .venv/bin/python -m benchmarks.drift --quiet-seeds 1 --drift-seeds 1 --users 600    (a look, seconds)

Every world lives 84 training days and 28 hold-out days, as behind a bundle of the default split; then quiet days are
judged, or a drift begins after 14 of them. The bundle's part (items, graph, tastes) is counted from the training days,
no model is trained: measures of the graph, the vectors, the lists and the feature store are read once a run of the
pipeline, not once a window, and are not part of this. Windows are whole days.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.drift.shop import TRAINING_DAYS, watched_days
from benchmarks.machine import cpu_seconds, peak_memory_mb, write_result
from components.core.sections import MonitorSettings
from components.monitor.measures import WINDOW_MEASURES
from components.monitor.thresholds import Limits
from components.monitor.windows import Window, judge_windows
from components.simulate.settings import Drift, DriftKind, WorldSettings

HOLDOUT_DAYS = 28
QUIET_BEFORE_DRIFT = 14
DAYS_WITH_DRIFT = 28
SIZES: dict[str, tuple[float, ...]] = {
    "volume": (0.15, 0.3, 1.0),
    "conversion": (0.1, 0.25, 0.5),
    "anonymous": (0.25, 0.5, 1.0),
    "price": (0.03, 0.1, 0.3),
    "category": (0.05, 0.1, 0.3),
    "popularity": (0.1, 0.3, 1.0),
    "taste": (0.1, 0.3, 1.0),
}
assert set(SIZES) == set(get_args(DriftKind))


def main(
    quiet_seeds: Annotated[int, typer.Option(help="Quiet worlds.")] = 8,
    quiet_days: Annotated[int, typer.Option(help="Judged quiet days of each world.")] = 100,
    drift_seeds: Annotated[int, typer.Option(help="Worlds of each kind and size of drift.")] = 3,
    users: Annotated[int, typer.Option(help="People of a world.")] = 1500,
    items: Annotated[int, typer.Option(help="Items of a world.")] = 600,
    sessions: Annotated[float, typer.Option(help="Sessions a person and day.")] = 0.3,
    rate: Annotated[float | None, typer.Option(help="False-alarm rate aimed at; the setting's default.")] = None,
) -> None:
    started, cpu = time.monotonic(), cpu_seconds()
    console = Console()
    settings = MonitorSettings()
    limits = Limits(
        quiet_windows=settings.quiet_windows,
        min_windows=settings.min_windows,
        false_alarm_rate=rate or settings.false_alarm_rate,
        num_measures=len(WINDOW_MEASURES),
    )
    shop: dict[str, Any] = {"users": users, "items": items, "sessions_per_user_day": sessions}
    quiet = []
    for seed in range(quiet_seeds):
        world = WorldSettings(seed=1000 + seed, days=TRAINING_DAYS + HOLDOUT_DAYS + quiet_days, **shop)
        quiet += _judge(world, limits)[HOLDOUT_DAYS:]
    false_alarms = [window for window in quiet if window.alarms]
    share = len(false_alarms) / len(quiet)
    by_measure = Counter(f"{name} ({window.judged[name].cause})" for window in false_alarms for name in window.alarms)
    console.print(
        f"{len(false_alarms)} of {len(quiet)} quiet windows alarmed ({share:.2%}; wanted: at most 1 %); "
        f"{len(WINDOW_MEASURES)} measures, aimed at {limits.false_alarm_rate:.2%}"
    )
    for name, count in by_measure.most_common():
        console.print(f"  {name}: {count}")
    rows = [_drifted(kind, size, range(drift_seeds), limits, shop) for kind, sizes in SIZES.items() for size in sizes]
    console.print(_table(rows))
    used = {"cpu_seconds": round(cpu_seconds() - cpu, 1), "seconds": round(time.monotonic() - started, 1)}
    console.print(f"{used['cpu_seconds']:.0f} CPU-s, {peak_memory_mb()} MB at the most")
    path = write_result(
        "drift",
        {
            "quiet_windows": len(quiet),
            "false_alarms": len(false_alarms),
            "false_alarm_share": share,
            "false_alarms_by_measure": dict(by_measure),
            "limits": {name: getattr(limits, name) for name in limits.__dataclass_fields__},
            "world": shop,
            "drift": rows,
            **used,
            "peak_memory_mb": peak_memory_mb(),
        },
    )
    console.print(f"[dim]{path}[/]")


def _judge(world: WorldSettings, limits: Limits) -> list[Window]:
    reference, days = watched_days(world)
    return judge_windows(days, reference, limits, bounds={})


def _drifted(kind: str, size: float, seeds: range, limits: Limits, shop: dict[str, Any]) -> dict[str, Any]:
    """Delays in days: 1 is an alarm on the drift's first day; None: not noticed."""
    begins = TRAINING_DAYS + HOLDOUT_DAYS + QUIET_BEFORE_DRIFT
    delays: list[int | None] = []
    first: Counter[str] = Counter()
    for seed in seeds:
        drift = Drift(kind=kind, day=begins, size=size)  # type: ignore[arg-type]  # a key of SIZES, checked above
        world = WorldSettings(seed=seed, days=begins + DAYS_WITH_DRIFT, drifts=(drift,), **shop)
        windows = _judge(world, limits)[HOLDOUT_DAYS + QUIET_BEFORE_DRIFT :]
        place = next((number for number, window in enumerate(windows) if window.alarms), None)
        delays.append(None if place is None else place + 1)
        if place is not None:
            first.update(windows[place].alarms)
    seen = [delay for delay in delays if delay is not None]
    return {
        "kind": kind,
        "size": size,
        "worlds": len(delays),
        "noticed": len(seen),
        "delays_days": delays,
        "median_delay_days": statistics.median(seen) if seen else None,
        "noticed_first_by": [name for name, _ in first.most_common(3)],
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Days until a planted drift is noticed (looked for {DAYS_WITH_DRIFT} days)")
    for heading in ("drift", "size", "noticed", "median", "each", "first by"):
        table.add_column(heading)
    for row in rows:
        each = ", ".join("–" if delay is None else str(delay) for delay in row["delays_days"])
        median = "–" if row["median_delay_days"] is None else f"{row['median_delay_days']:g}"
        noticed = f"{row['noticed']} of {row['worlds']}"
        table.add_row(row["kind"], f"{row['size']:g}", noticed, median, each, ", ".join(row["noticed_first_by"]))
    return table


if __name__ == "__main__":
    typer.run(main)
