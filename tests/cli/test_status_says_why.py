"""`basketweave status` shows what asked for a run, where somebody did."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.cli_status import print_status
from components.core.journal import TaskEntry, run_folder, write_entry
from components.core.settings import load_settings
from components.core.store import Store

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("why", ["drift: sessions 812 above 640", None])
def test_the_run_s_line_ends_with_what_asked_for_it(
    why: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(home=tmp_path)
    store = Store(settings.artifact_root)
    entry = TaskEntry(
        run_id="asset_triggered__1", task="ingest", state="done", summary="9 rows", seconds=1, finished_at=NOON, why=why
    )
    write_entry(store, run_folder(store, run_id=entry.run_id, started_at=NOON), entry)
    print_status(settings)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "9 rows" in line]
    assert line.endswith("9 rows" if why is None else f"because {why}")
