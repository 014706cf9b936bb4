"""The features step as it is run: through Feast, into the artifact, and online."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.core.artifact import Artifact
from components.core.errors import ContractError
from components.core.schemas import ITEM_STATISTICS, USER_HISTORY, USER_STATISTICS
from components.core.settings import load_settings
from components.core.split import TimeSplit
from components.core.step import execute
from components.core.store import Store
from components.features.kept_moments import TABLE
from components.features.snapshots import Snapshots
from components.features.step import STEP
from feature_repo.layout import FeastHome
from feature_repo.online import OnlineFeatures

TABLES = {
    "user_history.parquet": USER_HISTORY,
    "user_statistics.parquet": USER_STATISTICS,
    "item_statistics.parquet": ITEM_STATISTICS,
}


def run_features(settings, clean_ref, as_of):
    return execute(STEP, settings=settings, inputs={"clean": clean_ref}, run_id="test", as_of=as_of)


def open_tables(settings, execution):
    artifact = Artifact.open(Store(settings.artifact_root), execution.ref.uri, kind="features")
    return {name: artifact.table(name) for name in artifact.file_names}


def test_the_artifact_holds_what_feast_joined_and_that_is_what_was_computed(settings, clean, random_rows, day):
    as_of = day(45)
    clean_ref = clean(*random_rows, as_of)

    tables = open_tables(settings, run_features(settings, clean_ref, as_of))

    split = TimeSplit.of(as_of, settings.split)
    artifact = Artifact.open(Store(settings.artifact_root), clean_ref.uri)
    with Snapshots(
        event_files=artifact.partition_paths(),
        catalog_file=artifact.path("catalog.parquet"),
        moments=split.snapshot_times,
        recent_window=split.window,
        settings=settings.features,
    ) as snapshots:
        expected = (snapshots.user_history(), snapshots.user_statistics(), snapshots.item_statistics())
    assert set(tables) == set(TABLES)
    for (name, schema), table in zip(TABLES.items(), expected, strict=True):
        assert tables[name].schema == schema
        assert tables[name].equals(table)
    assert set(tables["user_history.parquet"]["event_timestamp"].to_pylist()) == set(split.snapshot_times)


def test_online_values_equal_the_training_rows_of_the_last_moment(settings, clean, random_rows, day):
    as_of = day(45)
    tables = open_tables(settings, run_features(settings, clean(*random_rows, as_of), as_of))

    last = {
        row["user_id"]: row
        for name in ("user_history.parquet", "user_statistics.parquet")
        for row in tables[name].to_pylist()
        if row["event_timestamp"] == as_of
    }
    histories = [row for row in tables["user_history.parquet"].to_pylist() if row["event_timestamp"] == as_of]
    online = OnlineFeatures(settings).read_many([row["user_id"] for row in histories], now=as_of)
    assert len(online) == 12
    for row, found in zip(histories, online, strict=True):
        assert found.event_timestamp == as_of
        for name in ("history_items", "history_weights", "history_ages_days", "recent_items", "recent_times"):
            assert list(getattr(found, name)) == row[name], name
        figures = last[row["user_id"]]
        assert found.statistics == {name: figures[name] for name in found.statistics}
        assert set(found.statistics) == {
            "recency_days",
            "frequency",
            "monetary",
            "basket_size",
            "price_level",
            "distinct_items",
        }
        assert list(found.category_shares) == figures["top_categories"]
        assert list(found.category_shares.values()) == figures["top_category_shares"]


def test_equal_work_gives_equal_hashes_in_another_home(settings, clean, random_rows, day, tmp_path):
    other = load_settings(**settings.model_dump() | {"home": tmp_path / "other", "project": "their-shop"})

    one = run_features(settings, clean(*random_rows, day(45)), day(45))
    two = run_features(other, clean(*random_rows, day(45), settings=other), day(45))

    assert one.ref.sha256 == two.ref.sha256


def test_a_second_run_is_reused_unless_the_online_store_is_gone(settings, clean, random_rows, day):
    clean_ref = clean(*random_rows, day(45))
    first = run_features(settings, clean_ref, day(45))
    assert run_features(settings, clean_ref, day(45)).is_reused

    FeastHome.of(settings).online.unlink()
    again = run_features(settings, clean_ref, day(45))

    assert not again.is_reused
    assert again.ref == first.ref
    assert OnlineFeatures(settings).read("u00", now=day(45)) is not None


def moments_computed(execution, day):
    """In days since 1 March."""
    return [
        (datetime.fromisoformat(at) - day(0)) / timedelta(days=1)
        for at in execution.manifest.statistics["moments_computed"]
    ]


def test_a_late_row_moves_the_moments_after_it_and_no_other(settings, clean, random_rows, day, tmp_path):
    """Snapshots stand at days 17, 24, 31, 38 and 45."""
    events, catalog = random_rows
    first = run_features(settings, clean(events, catalog, day(45)), day(45))
    assert moments_computed(first, day) == [17, 24, 31, 38, 45]
    late = [*events, events[0] | {"user_id": "u05", "item_id": "i03", "timestamp": day(33.5), "event_type": "purchase"}]

    after = run_features(settings, clean(late, catalog, day(45), name="late"), day(45))

    assert moments_computed(after, day) == [38, 45]
    other = load_settings(**settings.model_dump() | {"home": tmp_path / "other"})
    anew = run_features(other, clean(late, catalog, day(45), settings=other, name="late"), day(45))
    assert moments_computed(anew, day) == [17, 24, 31, 38, 45]
    assert after.ref.sha256 == anew.ref.sha256 != first.ref.sha256


def test_a_new_catalogue_moves_every_moment(settings, clean, random_rows, day):
    events, catalog = random_rows
    run_features(settings, clean(events, catalog, day(45)), day(45))
    after = run_features(settings, clean(events, catalog[1:], day(45), name="other catalogue"), day(45))
    assert moments_computed(after, day) == [17, 24, 31, 38, 45]


def test_moments_whose_files_are_damaged_are_computed_again_and_old_ones_are_gone(settings, clean, random_rows, day):
    events, catalog = random_rows
    run_features(settings, clean(events, catalog, day(45)), day(45))
    store = Store(settings.artifact_root)
    for file in Path(store.path(TABLE)).glob("*/user_history.parquet"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    late = [*events, events[0] | {"user_id": "u05", "item_id": "i03", "timestamp": day(44.5)}]

    after = run_features(settings, clean(late, catalog, day(45), name="late"), day(45))

    assert moments_computed(after, day) == [17, 24, 31, 38, 45]
    assert len(store.list_dir(TABLE)) == 5 + 1  # the state; of the first run's last moment nothing is left


def test_an_older_run_leaves_the_newer_online_features_alone(settings, clean, random_rows, day):
    clean_ref = clean(*random_rows, day(45))
    run_features(settings, clean_ref, day(45))
    newest = OnlineFeatures(settings).read("u00", now=day(45))

    older = run_features(settings, clean_ref, day(40))

    found = OnlineFeatures(settings).read("u00", now=day(45))
    assert found.event_timestamp == day(45)
    assert found.history_items == newest.history_items
    assert older.manifest.statistics["users_online"] == 0
    assert run_features(settings, clean_ref, day(40)).is_reused


def test_a_user_who_left_the_log_leaves_the_online_store(settings, clean, random_rows, day):
    events, catalog = random_rows
    run_features(settings, clean(events, catalog, day(45)), day(45))
    without = [row for row in events if row["user_id"] != "u03"]

    run_features(settings, clean(without, catalog, day(45), name="erased"), day(45))

    gone, stays = OnlineFeatures(settings).read_many(["u03", "u04"], now=day(45))
    assert gone is None
    assert stays.user_id == "u04"


def test_a_log_without_users_stops_with_one_sentence(settings, clean, day):
    anonymous = [{"user_id": None, "session_id": "s", "item_id": "tea", "timestamp": day(1)}]

    with pytest.raises(ContractError, match="No event before 2024-03-03 00:00 names a user"):
        run_features(settings, clean(anonymous, [], day(2)), day(2))


def test_the_command_runs_the_step_and_says_what_it_did(settings, clean, random_rows, day, tmp_path):
    clean(*random_rows, day(45))
    environment = {
        "BASKETWEAVE_HOME": str(settings.home),
        "BASKETWEAVE_PROJECT": settings.project,
        "BASKETWEAVE_SPLIT__WINDOW_DAYS": "7",
        "HOME": str(tmp_path),
        "COLUMNS": "200",
    }

    done = subprocess.run(
        [sys.executable, "-m", "components.features"], env=environment, capture_output=True, text=True, check=True
    )

    assert "12 users at 5 moments, 12 online" in done.stdout
    assert len(done.stdout.splitlines()) == 1, "Feast's own prints are kept out"
    assert pq.read_table(FeastHome.of(settings).offline("user_history")).num_rows > 12


def test_help_loads_neither_feast_nor_duckdb():
    script = (
        "import runpy, sys; sys.argv = ['features', '--help']\n"
        "try: runpy.run_module('components.features', run_name='__main__')\n"
        "except SystemExit: print({'feast', 'duckdb', 'pandas', 'ibis'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Compute user and item features" in done.stdout
    assert done.stdout.strip().endswith("set()")
