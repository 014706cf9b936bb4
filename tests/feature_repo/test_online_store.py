"""The online store: what the service reads, how old it says that is, and how it fails."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from datetime import timedelta

import numpy as np
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from components.core.errors import BusyError, FeatureStoreError
from components.core.settings import load_settings
from feature_repo import store as store_module
from feature_repo.layout import FeastHome
from feature_repo.online import OnlineFeatures
from feature_repo.online_store import NewestSqliteOnlineStore
from feature_repo.store import FeatureRepo


def publish(repo, fill, rows, at):
    fill(rows)
    return repo.materialize(at, [history["user_id"] for history, _ in rows])


def test_a_read_ages_the_features_to_now(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["jam", "tea"], recency_days=0.5, frequency=3)], moment(1))

    found = OnlineFeatures(settings).read("ann", now=moment(3.5))

    assert found.event_timestamp == moment(1)
    assert found.history_items == ["jam", "tea"]
    assert found.history_weights.tolist() == [1.5, 1.5]
    assert found.history_ages_days.tolist() == [2.5, 3.5]
    assert found.history_ages_days.dtype == np.float32
    assert found.recent_times == [moment(1), moment(1)]
    assert found.statistics["recency_days"] == 3.0
    assert found.statistics["frequency"] == 3
    assert found.statistics["monetary"] is None
    assert found.category_shares == {"tea": 1.0}


def test_a_clock_behind_the_features_does_not_make_them_younger(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(5), items=["jam", "tea"])], moment(5))

    assert OnlineFeatures(settings).read("ann", now=moment(2)).history_ages_days.tolist() == [0.0, 1.0]


def test_unknown_users_are_none_and_users_without_history_are_not(repo, fill, given, settings):
    moment, user_rows = given
    rows = [user_rows("ann", moment(1), items=[]), user_rows("bob", moment(1), items=["tea"])]
    publish(repo, fill, rows, moment(1))

    bob, nobody, ann = OnlineFeatures(settings).read_many(["bob", "nobody", "ann"], now=moment(1))

    assert (bob.user_id, ann.user_id, nobody) == ("bob", "ann", None)
    assert list(ann.history_items) == []
    assert ann.history_ages_days.shape == (0,)


def test_many_users_are_read_in_the_order_asked_and_repeats_are_answered(repo, fill, given, settings):
    moment, user_rows = given
    names = [f"u{n}" for n in range(1203)]
    publish(repo, fill, [user_rows(name, moment(1), items=[f"item of {name}"]) for name in names], moment(1))
    asked = [*reversed(names), "u7", "u7"]

    found = OnlineFeatures(settings).read_many(asked, now=moment(1))

    assert [features.history_items for features in found] == [[f"item of {name}"] for name in asked]


def test_the_newer_row_stays_whoever_writes_last(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(9), items=["new"])], moment(9))

    online = publish(repo, fill, [user_rows("ann", moment(2), items=["old"])], moment(2))

    assert online == 0
    assert OnlineFeatures(settings).read("ann", now=moment(9)).history_items == ["new"]


def test_the_same_moment_again_replaces_the_row(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(2), items=["wrong"])], moment(2))

    online = publish(repo, fill, [user_rows("ann", moment(2), items=["right"])], moment(2))

    assert online == 1
    assert OnlineFeatures(settings).read("ann", now=moment(2)).history_items == ["right"]


def test_who_is_not_in_the_snapshot_is_forgotten_and_newer_rows_are_not(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("newer", moment(9), items=["tea"])], moment(9))
    both = [user_rows(name, moment(2), items=["tea"]) for name in ("ann", "bob")]
    publish(repo, fill, both, moment(2))

    publish(repo, fill, both[:1], moment(2))

    found = OnlineFeatures(settings).read_many(["ann", "bob", "newer"], now=moment(9))
    assert [features and features.user_id for features in found] == ["ann", None, "newer"]


def test_the_age_of_features_does_not_depend_on_the_machines_time_zone(repo, fill, given, settings, monkeypatch):
    moment, user_rows = given
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"])], moment(1))

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    found = OnlineFeatures(settings).read("ann", now=moment(1))
    monkeypatch.undo()
    time.tzset()

    assert found.event_timestamp == moment(1)
    assert found.recent_times == [moment(1)]
    assert FeastHome.of(settings).online_moment() == moment(1)


def test_a_missing_store_is_one_error_and_its_return_is_noticed(repo, fill, given, settings):
    moment, user_rows = given
    rows = [user_rows("ann", moment(1), items=["tea"])]
    reader = OnlineFeatures(settings)
    with pytest.raises(FeatureStoreError, match="Run the features step"):
        reader.read("ann", now=moment(1))
    assert not FeastHome.of(settings).online.exists(), "a read must not make an empty store"

    publish(repo, fill, rows, moment(1))
    assert reader.read("ann", now=moment(1)) is not None

    os.remove(repo.home.online)
    with pytest.raises(FeatureStoreError):
        reader.read("ann", now=moment(1))


def test_a_replaced_store_is_read_anew(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"])], moment(1))
    reader = OnlineFeatures(settings)
    reader.read("ann", now=moment(1))

    os.rename(repo.home.online, repo.home.folder / "gone.db")
    again = FeatureRepo(FeastHome.of(settings))
    again.apply()
    publish(again, fill, [user_rows("ann", moment(2), items=["jam"])], moment(2))

    assert reader.read("ann", now=moment(2)).history_items == ["jam"]


def test_a_corrupt_store_is_the_same_one_error(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"])], moment(1))
    repo.home.online.write_bytes(b"no database" * 1000)

    with pytest.raises(FeatureStoreError, match="DatabaseError"):
        OnlineFeatures(settings).read("ann", now=moment(1))
    assert FeastHome.of(settings).online_moment() is None


def test_threads_share_a_reader_and_read_on_while_a_run_writes(repo, fill, given, settings):
    moment, user_rows = given
    names = [f"u{n}" for n in range(200)]
    publish(repo, fill, [user_rows(name, moment(1), items=[name]) for name in names], moment(1))
    reader, stop, wrong = OnlineFeatures(settings), threading.Event(), []
    reads = [0]

    def read_on():
        while not stop.is_set():
            for name in names[:20]:
                try:
                    found = reader.read(name, now=moment(5))
                except FeatureStoreError as error:
                    wrong.append(error.__cause__)
                    continue
                reads[0] += 1
                if found.history_items != [name] or found.event_timestamp < moment(1):
                    wrong.append(found)

    threads = [threading.Thread(target=read_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    for day in (2, 3):
        publish(repo, fill, [user_rows(name, moment(day), items=[name]) for name in names], moment(day))
    stop.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert reads[0] > 0
    assert reader.read("u0", now=moment(5)).event_timestamp == moment(3)


def test_a_read_does_not_wait_for_a_writer(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"])], moment(1))

    with closing(sqlite3.connect(repo.home.online, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert OnlineFeatures(settings).read("ann", now=moment(1)) is not None
        writer.execute("ROLLBACK")


def test_a_table_as_feast_lays_it_out_is_replaced_by_the_next_run(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"])], moment(1))
    with closing(sqlite3.connect(repo.home.online)) as by_hand:
        [table] = [view for (view,) in by_hand.execute("SELECT name FROM sqlite_master WHERE name LIKE '%history'")]
        by_hand.execute(f'DROP TABLE "{table}"')
        by_hand.execute(f'CREATE TABLE "{table}" (entity_key BLOB, feature_name TEXT, value BLOB, event_ts timestamp)')
    with pytest.raises(FeatureStoreError, match="Run the features step"):
        OnlineFeatures(settings).read("ann", now=moment(1))

    publish(FeatureRepo(repo.home), fill, [user_rows("ann", moment(2), items=["jam"])], moment(2))

    assert OnlineFeatures(settings).read("ann", now=moment(2)).history_items == ["jam"]


def test_a_feature_that_a_view_has_newly_gets_a_column(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"], frequency=3)], moment(1))
    with closing(sqlite3.connect(repo.home.online)) as by_hand:
        [table] = [view for (view,) in by_hand.execute("SELECT name FROM sqlite_master WHERE name LIKE '%statistics'")]
        by_hand.execute(f'ALTER TABLE "{table}" DROP COLUMN frequency')
    with pytest.raises(FeatureStoreError, match="OperationalError"):
        OnlineFeatures(settings).read("ann", now=moment(1))

    publish(FeatureRepo(repo.home), fill, [user_rows("ann", moment(1), items=["tea"], frequency=3)], moment(1))

    assert OnlineFeatures(settings).read("ann", now=moment(1)).statistics["frequency"] == 3


def test_features_that_a_write_leaves_out_stay(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"], frequency=3, monetary=2.5)], moment(1))
    view = repo.feast.get_feature_view("user_statistics")
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(string_val="ann")])
    row = (key, {"frequency": Value(int64_val=4)}, moment(2), None)

    NewestSqliteOnlineStore().online_write_batch(repo.feast.config, view, [row], None)

    found = OnlineFeatures(settings).read("ann", now=moment(2))
    assert (found.statistics["frequency"], found.statistics["monetary"]) == (4, 2.5)


def test_projects_with_one_home_share_no_feature(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["tea"])], moment(1))
    other = load_settings(home=settings.home, project="0-other")
    other_repo = FeatureRepo(FeastHome.of(other))
    other_repo.apply()

    assert OnlineFeatures(other).read("ann", now=moment(1) + timedelta(days=1)) is None


def test_a_second_writer_is_told_to_wait(repo, settings, monkeypatch):
    monkeypatch.setattr(store_module, "LOCK_TIMEOUT_SECONDS", 0.05)
    second = FeatureRepo(FeastHome.of(settings))
    with (
        repo.writing(),
        pytest.raises(BusyError, match="Another process is writing the feature store"),
        second.writing(),
    ):
        pass
