"""`basketweave status`, `recommend`, `stop` and `airflow`: what runs on this machine, and ending it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.cli_run import MARKS
from components.core.errors import StopError
from components.core.journal import TaskEntry, last_runs
from components.core.live import ServiceRecord, find_service, read_pointer
from components.core.settings import Settings
from components.core.store import Store
from components.deploy.probe import ServiceClient
from components.deploy.service_process import stop_service
from components.orchestration.alert_webhook import Receiver, by_airflow, by_command, make_server
from components.orchestration.scheduler import find_scheduler, start_scheduler, stop_scheduler

RUNS = 3


def print_status(settings: Settings) -> None:
    console = Console(highlight=False)
    store = Store(settings.artifact_root)
    runs = last_runs(store, count=RUNS)
    console.print(Text(f"Project {settings.project}", style="bold"), Text(settings.artifact_root, style="dim"))
    for entries in runs:
        console.print(_run_line(entries), soft_wrap=True)
    if not runs:
        console.print("No run yet. Start one with: basketweave run")
    pointer = read_pointer(store)
    live = f"bundle {pointer.bundle.sha256[:12]}, since {pointer.moved_at:%Y-%m-%d %H:%M} UTC" if pointer else "none"
    console.print(Text(f"Deployed: {live}"))
    console.print(Text(f"Service: {_service_state(settings, find_service(settings))}"))
    scheduler = find_scheduler(settings)
    console.print(Text(f"Airflow: {scheduler.url if scheduler else 'does not run'}"))


def print_recommendations(settings: Settings, *, user: str, k: int) -> None:
    record = find_service(settings)
    if record is None:
        raise StopError(f"No service of project '{settings.project}' runs. Start it with: basketweave serve")
    status, answer = ServiceClient(settings, record).post("/recommend", {"user_id": user, "k": k})
    if status != 200:
        detail = (answer or {}).get("detail", "no reason given")
        raise StopError(f"The service at {record.url} answered {status}: {detail}")
    table = Table("", "item", "title", "category", "why", box=None, pad_edge=False)
    for place, item in enumerate(answer["items"], start=1):
        cells = (item["item_id"], item["title"], item["category"] or "", "; ".join(item["reasons"]))
        table.add_row(str(place), *map(Text, cells))
    console = Console(highlight=False)
    console.print(table)
    console.print(Text(f"from {answer['source']}, bundle {answer['bundle'][:12]}", style="dim"))


def stop_everything(settings: Settings) -> None:
    """End the services of all projects of this home, and its Airflow; says what was ended."""
    console = Console(highlight=False)
    for home in sorted(path for path in settings.home.glob("*") if path.is_dir()):
        if (service := stop_service(settings.model_copy(update={"project": home.name}))) is not None:
            console.print(Text(f"Stopped the service of project {home.name} at {service.url}"))
    if (scheduler := stop_scheduler(settings)) is not None:
        console.print(Text(f"Stopped Airflow at {scheduler.url}"))


def start_airflow(settings: Settings, *, port: int | None) -> None:
    console = Console(highlight=False)
    with console.status("Starting Airflow, about a minute") as status:
        record = start_scheduler(
            settings, port=port, waiting=lambda part: status.update(f"Starting Airflow, waiting for the {part}")
        )
    console.print(Text(f"Airflow: {record.url}", style="bold"))
    console.print("On this machine you are signed in as its administrator, without a password.", soft_wrap=True)
    reads = f"reads the source '{settings.source.profile}' and runs {_schedule(settings)}"
    console.print(Text(f"The DAG 'recommender' of project {settings.project} {reads}."), soft_wrap=True)
    console.print("End it with: make stop, or basketweave stop")


def receive_alerts(
    settings: Settings,
    *,
    port: int,
    airflow_url: str | None,
    token_file: Path | None,
    alerts: Sequence[str],
    cooldown_minutes: float,
) -> None:
    """Until Ctrl-C. Without an Airflow, runs are processes of this machine."""
    running = find_scheduler(settings)
    token = token_file.read_text().strip() if token_file else None
    url = airflow_url or (running.url if running else None)
    start = by_airflow(url, token=token) if url else by_command(settings)
    receiver = Receiver(start, alerts=alerts, cooldown_seconds=60 * cooldown_minutes)
    with make_server(receiver, port=port) as server:
        console = Console(highlight=False)
        where = f"starts runs in the Airflow at {url}" if url else "starts runs on this machine"
        console.print(Text(f"http://127.0.0.1:{server.server_port}/alerts takes {', '.join(alerts)} and {where}"))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def _schedule(settings: Settings) -> str:
    schedule = settings.orchestration.schedule
    return f"on the schedule '{schedule}'" if schedule else "when it is triggered"


def _run_line(entries: Sequence[TaskEntry]) -> Text:
    if not entries:
        return Text("(a run of another version)")
    last = entries[-1]
    line = Text(f"{last.finished_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC  ")
    for entry in entries:
        mark, colour = MARKS[entry.state]
        line.append(f"{mark} {entry.task}  ", style=colour)
    why = next((entry.why for entry in entries if entry.why), None)
    line.append(last.summary, style="dim")
    return line.append(f"  because {why}", style="yellow") if why else line


def _service_state(settings: Settings, record: ServiceRecord | None) -> str:
    if record is None:
        return "does not run"
    try:
        status, answer = ServiceClient(settings, record).get("/readyz")
    except OSError as error:
        return f"{record.url} does not answer ({error})"
    if status != 200:
        return f"{record.url} is not ready: {(answer or {}).get('reason')}"
    return f"{record.url} answers with bundle {answer['bundle'][:12]}"
