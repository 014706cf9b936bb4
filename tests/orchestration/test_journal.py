from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from components.core.journal import TaskEntry, last_runs, run_folder, write_entry
from components.core.store import Store

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def entry(run_id: str, task: str, *, minute: int) -> TaskEntry:
    return TaskEntry(
        run_id=run_id, task=task, state="done", summary="", seconds=1, finished_at=NOON + timedelta(minutes=minute)
    )


def test_the_newest_runs_come_first_and_their_tasks_in_order_of_time(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run, hour in (("a", 0), ("b__2024-05-01T13:00:00+00:00", 1), ("c", 2)):
        folder = run_folder(store, run_id=run, started_at=NOON + timedelta(hours=hour))
        write_entry(store, folder, entry(run, "ingest", minute=1))
        write_entry(store, folder, entry(run, "validate", minute=2))
    runs = last_runs(store, count=2)
    assert [[(one.run_id[0], one.task) for one in run] for run in runs] == [
        [("c", "ingest"), ("c", "validate")],
        [("b", "ingest"), ("b", "validate")],
    ]


def test_an_unreadable_entry_hides_no_other(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    folder = run_folder(store, run_id="a", started_at=NOON)
    write_entry(store, folder, entry("a", "ingest", minute=1))
    (tmp_path / "runs" / folder / "train.json").write_text('{"of": "another version"}')
    assert [one.task for one in last_runs(store, count=1)[0]] == ["ingest"]


def test_a_run_whose_first_entry_is_just_being_written_is_left_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_entry(store, run_folder(store, run_id="a", started_at=NOON), entry("a", "ingest", minute=1))
    begun = tmp_path / "runs" / run_folder(store, run_id="b", started_at=NOON + timedelta(hours=1))
    begun.mkdir()
    (begun / ".ingest.json.part").write_text("{")
    assert [run[0].run_id for run in last_runs(store, count=1)] == ["a"]


def test_a_clock_that_is_set_back_changes_no_order(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for run, hours_back in (("first", 0), ("second", 5), ("third", 3)):
        started_at = NOON - timedelta(hours=hours_back)
        for number, task in enumerate(("ingest", "validate", "ingest")):  # ingest once more: a later try
            minute = -60 * hours_back - number
            write_entry(store, run_folder(store, run_id=run, started_at=started_at), entry(run, task, minute=minute))
    runs = last_runs(store, count=2)
    assert [[(one.run_id, one.task) for one in run] for run in runs] == [
        [("third", "validate"), ("third", "ingest")],
        [("second", "validate"), ("second", "ingest")],
    ]


def test_the_part_of_a_killed_writer_is_no_entry(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    folder = run_folder(store, run_id="a", started_at=NOON)
    write_entry(store, folder, entry("a", "ingest", minute=1))
    whole = tmp_path / "runs" / folder / "ingest.json"
    whole.with_name(".ingest.json.5ab1.part").write_bytes(whole.read_bytes())
    assert len(last_runs(store, count=1)[0]) == 1


def test_no_run_yet(tmp_path: Path) -> None:
    assert last_runs(Store(str(tmp_path)), count=3) == []
