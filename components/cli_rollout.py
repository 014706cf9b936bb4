"""`basketweave rollback` and `unbar`: taking a bundle back, and letting a barred one be promoted again."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from components.core.clock import wall_clock
from components.core.rollout import unbar
from components.core.settings import Settings
from components.core.store import Store
from components.deploy.rollback import restore_registry, roll_back, wait_for_workers


def print_rollback(settings: Settings, *, to: str | None, reason: str, timeout_seconds: float) -> None:
    console = Console(highlight=False)
    done = roll_back(settings, to=to, reason=reason, run_id=f"rollback-{wall_clock():%Y%m%dT%H%M%S}")
    if done.ended_rollout is not None:
        console.print(Text(f"Ended rollout {done.ended_rollout}"))
    verb = "moved back to" if done.moved else "stays at"
    console.print(Text(f"Pointer {verb} bundle {done.bundle.sha256[:12]}"))
    with console.status("Waiting for every worker"):
        workers, seconds = wait_for_workers(settings, done, timeout_seconds=timeout_seconds)
    if workers:
        console.print(Text(f"{_counted(workers)} with it, {seconds:.1f} s after the move"))
    else:
        console.print("No worker of the service runs; the next one will answer with it")
    for sha256 in done.barred:
        console.print(Text(f"Barred {sha256[:12]} ({reason}); lift it by: basketweave unbar {sha256[:12]}"))
    # Last, since it takes seconds to load: nobody waits for the registry.
    restore_registry(settings, done)


def print_unbar(settings: Settings, *, prefix: str) -> None:
    sha256, bar = unbar(Store(settings.artifact_root), prefix)
    console = Console(highlight=False)
    console.print(Text(f"Bundle {sha256[:12]} may be promoted again; it was barred at {bar.at:%Y-%m-%d %H:%M} UTC"))
    console.print(Text(f"for: {bar.reason}"))


def _counted(workers: int) -> str:
    return "1 worker answers" if workers == 1 else f"All {workers} workers answer"
