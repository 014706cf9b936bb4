"""A small shop whose log is ingested and then judged; single rows and days can be spoilt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from components.core.artifact import Artifact
from components.core.settings import Settings, load_settings
from components.core.step import Execution, execute
from components.core.store import Store

HEADER = "event_id,user_id,item_id,event_type,timestamp,session_id,quantity,price\n"
FIRST_DAY = date(2024, 5, 1)


def good_row(number: int, day: date, **changes: Any) -> str:
    """One line of the log; row `number` of `day`."""
    row: dict[str, Any] = {
        "event_id": f"e{day:%m%d}-{number}",
        "user_id": f"secret-user-{number % 5}",
        "item_id": f"i{number % 7}",
        "event_type": "purchase",
        "timestamp": f"{day}T{8 + number % 12:02d}:{number % 60:02d}:00Z",
        "session_id": f"secret-session-{day}-{number % 5}",
        "quantity": 1,
        "price": 2 + number % 3,
    }
    return ",".join(str(value) for value in (row | changes).values()) + "\n"


def good_day(day: date, *, rows: int = 20) -> str:
    return "".join(good_row(number, day) for number in range(rows))


class JudgedShop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.validation: dict[str, Any] = {}
        self.has_catalog = True
        self.items: list[str] = [f"i{number},Item {number},c{number % 2},3" for number in range(7)]

    @property
    def settings(self) -> Settings:
        source = {"profile": "contract", "events": str(self.folder / "events.csv")}
        if self.has_catalog:
            source["catalog"] = str(self.folder / "catalog.csv")
        return load_settings(home=self.folder / "home", source=source, validation=self.validation)

    @property
    def store(self) -> Store:
        return Store(self.settings.artifact_root)

    def ingest(self, lines: str, *, day: str | None = None, as_of: datetime | None = None) -> Execution:
        from components.ingest.step import STEP

        (self.folder / "events.csv").write_text(HEADER + lines)
        (self.folder / "catalog.csv").write_text(
            "item_id,title,category,price,is_product\n" + "".join(f"{item}\n" for item in self._catalog_lines())
        )
        options = {"day": day} if day else {}
        return execute(STEP, settings=self.settings, inputs={}, run_id="test", as_of=as_of, options=options)

    def _catalog_lines(self) -> list[str]:
        return [item if item.count(",") == 4 else f"{item}," for item in self.items]

    def validate(self, lines: str | None = None, *, as_of: datetime | None = None, **ingest: Any) -> Artifact:
        """Ingest (when given lines) and validate; returns the clean artifact, verified, the rows law checked."""
        from components.core.step import latest
        from components.validate.step import STEP

        if lines is not None:
            self.ingest(lines, as_of=as_of, **ingest)
        execution = execute(
            STEP,
            settings=self.settings,
            inputs={"events": latest(self.store, "events")},
            run_id="run:1",
            as_of=as_of,
        )
        artifact = Artifact.open(self.store, execution.ref.uri, kind="clean")
        artifact.verify()
        rows = artifact.manifest.statistics["rows"]
        assert rows["source"] == rows["kept"] + rows["duplicates"] + rows["quarantined"]
        assert rows["kept"] == artifact.manifest.rows == sum(part.rows for part in artifact.manifest.partitions)
        return artifact


def days(count: int) -> list[date]:
    return [FIRST_DAY + timedelta(days=number) for number in range(count)]


def good_log(count: int = 4, *, rows: int = 20) -> str:
    return "".join(good_day(day, rows=rows) for day in days(count))


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def statuses(artifact: Artifact) -> Mapping[str, str]:
    """'table: check' -> status."""
    from components.validate.results import Results

    results = Results.model_validate_json(artifact.path("results.json").read_bytes())
    return {f"{check.table}: {check.name}": check.status for check in results.checks}
