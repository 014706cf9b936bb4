"""Check the charts by the real Helm: `python -m charts.check`. Prints a table; exit status 1 where something is wrong.

Needs npm and unzip where there is no Helm, and promtool. Fetches checkov and the Prometheus operator's types once, into
the user's cache folder.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from charts.check.checks import Result, all_checks
from charts.check.helm import NoHelmError


def main() -> None:
    console = Console()
    table = Table("check", "of", "looked at", "", title="charts/basketweave")
    broken: list[Result] = []
    started = time.monotonic()
    try:
        for check in all_checks():
            result = check()
            table.add_row(
                result.check, result.subject, result.looked_at, "[red]✗[/]" if result.problems else "[green]✓[/]"
            )
            broken += [result] if result.problems else []
    except (NoHelmError, RuntimeError) as error:
        console.print(f"[red]{escape(str(error))}[/]", highlight=False)
        sys.exit(1)
    console.print(table)
    for result in broken:
        for problem in result.problems:
            console.print(f"[red]{escape(f'{result.check}, {result.subject}:')}[/] {escape(problem)}", highlight=False)
    console.print(f"{len(broken)} of {table.row_count} checks failed, {time.monotonic() - started:.0f} s")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
