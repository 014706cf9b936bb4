"""What `basketweave run` shows at its end: people, what they bought and would be recommended, and where to look."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from components.core.artifact import Artifact
from components.core.errors import ArtifactError
from components.core.live import find_service
from components.core.schemas import EVENT_WEIGHTS
from components.core.settings import Settings
from components.core.step import latest
from components.core.store import Store
from components.deploy.probe import ServiceClient

PEOPLE = 3
TITLES = 5
PURCHASE = EVENT_WEIGHTS["purchase"]
# Long enough to say something of a person's taste.
MIN_HISTORY = 20
# Its households are numbers of a published, simulated data set; other logs' users stay unnamed.
PUBLIC_PROFILES = ("complete_journey",)


def service_answers_with(settings: Settings) -> str | None:
    """None when the running service answers with this project's newest bundle; else the problem, one sentence."""
    bundle = latest(Store(settings.artifact_root), "bundle")
    record = find_service(settings)
    if record is None:
        return "The service does not run, though the deployment said so. Run again, or look into service.log."
    try:
        _, answer = ServiceClient(settings, record).get("/readyz")
    except OSError as error:
        return f"The service at {record.url} does not answer ({error})."
    serving = (answer or {}).get("bundle")
    if serving == bundle.sha256:
        return None
    return f"The service at {record.url} answers with bundle {serving}, this run made {bundle.sha256}."


def show_people(settings: Settings, *, console: Console) -> None:
    """For a few people: what they bought, by the online store, and what the live service recommends."""
    record = find_service(settings)
    if record is None:
        return
    client = ServiceClient(settings, record)
    for number, user_id in enumerate(pick_people(settings), start=1):
        _, history = client.get(f"/users/{quote(user_id, safe='')}/history")
        _, answer = client.post("/recommend", {"user_id": user_id, "k": TITLES})
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(width=13)
        table.add_column(ratio=1, overflow="fold")
        had = (history or {}).get("items", [])
        table.add_row(Text("bought", style="dim"), Text(_titles([item for item in had if item["weight"] >= PURCHASE])))
        table.add_row(Text("recommended", style="green"), Text(_titles((answer or {}).get("items", []))))
        named = settings.source.profile in PUBLIC_PROFILES
        console.print(Text(f"\nHousehold {user_id}" if named else f"\nCustomer {number} of {PEOPLE}", style="bold"))
        console.print(Padding(table, (0, 0, 0, 2)))


def show_defects(settings: Settings, *, console: Console) -> None:
    """What the log's profile knows to be wrong with it, counted at ingest; nothing where it knows nothing."""
    store = Store(settings.artifact_root)
    defects = Artifact.open(store, latest(store, "events").uri).manifest.statistics.get("defects", [])
    if not defects:
        return
    console.print(Text("\nKnown defects of this log", style="bold"))
    for defect in defects:
        console.print(Text(f"  {defect['count']:>9,}  {defect['sentence']}"))


def pick_people(settings: Settings) -> list[str]:
    """A few users with histories, spread over the ids in order: the same for equal features."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    store = Store(settings.artifact_root)
    features = latest(store, "features")
    path = Artifact.open(store, features.uri, sha256=features.sha256, kind="features").path("user_history.parquet")
    table = pq.read_table(path, columns=["user_id", "event_timestamp", "history_items"])
    table = table.filter(pc.equal(table["event_timestamp"], pc.max(table["event_timestamp"])))
    lengths = pc.fill_null(pc.list_value_length(table["history_items"]), 0)
    enough = table.filter(pc.greater_equal(lengths, min(MIN_HISTORY, pc.max(lengths).as_py() or 0)))
    users = sorted(enough["user_id"].to_pylist(), key=lambda user_id: (len(user_id), user_id))
    step = max(1, len(users) // PEOPLE)
    return users[::step][:PEOPLE]


def show_places(settings: Settings, *, console: Console, deployed: bool) -> None:
    """Where to look next: pages, reports and commands."""
    record = find_service(settings)
    rows: list[tuple[str, str]] = []
    if record is not None:
        rows += [("service page" if deployed else "old service", record.url), ("its API", f"{record.url}/docs.json")]
    for label, kind, name in (
        ("data quality", "clean", "quality.html"),
        ("evaluation", "evaluation", "report.html"),
        ("model card", "evaluation", "model_card.md"),
    ):
        if (path := report_path(settings, kind, name)) is not None:
            rows.append((label, path))
    folder = Path(sys.executable).parent
    rows += [
        ("tracking", f"{folder / 'mlflow'} ui --host 127.0.0.1 --backend-store-uri '{settings.tracking_uri}'"),
        ("Airflow", "make airflow"),
        ("to end it", "make stop"),
    ]
    console.print(Text("\nWhere to look next", style="bold"))
    for label, place in rows:
        # Never folded: a path or a command is there to be copied.
        console.print(Text.assemble((f"  {label:<13} ", "dim"), place), soft_wrap=True)


def report_path(settings: Settings, kind: str, name: str) -> str | None:
    """Path or URI of a report in the newest artifact of a kind; None where there is none."""
    store = Store(settings.artifact_root)
    try:
        artifact = Artifact.open(store, latest(store, kind).uri)
    except ArtifactError:
        return None
    return f"{artifact.manifest.uri}/{name}" if name in artifact.file_names else None


def _titles(items: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(str(item["title"] or item["item_id"]) for item in items[:TITLES]) or "nothing yet"
