"""The rows that the service reads itself, held against what Feast's own reader answers."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime

import pytest
import services
from feast import FeatureStore

from components.core.errors import WouldWaitError
from components.core.schemas import USER_HISTORY, USER_STATISTICS
from components.core.settings import Settings, load_settings
from feature_repo.layout import USER_SERVICE, FeastHome
from feature_repo.online import OnlineFeatures
from feature_repo.online_rows import entity_key
from feature_repo.store import repo_config
from feature_repo.stored_users import KEYS, SCALAR_STATISTICS

COLUMNS = [name for schema in (USER_HISTORY, USER_STATISTICS) for name in schema.names if name not in KEYS]
USERS = ["ann", "böb 7", "empty", "nobody", "x" * 200]


def rows_of(user_rows, at):
    return [
        user_rows("ann", at, items=["jam", "tée", "jam 2"], recency_days=0.25, frequency=3, monetary=-12.5),
        user_rows("böb 7", at, items=["tea"], basket_size=1.5, price_level=0.0, distinct_items=2**40),
        user_rows("empty", at, items=[]),
        user_rows("x" * 200, at, items=[f"item {n}" for n in range(300)]),
    ]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def settings(request, tmp_path) -> Settings:
    if request.param == "sqlite":
        yield load_settings(home=tmp_path / "home", project="my-shop")
        return
    with services.redis(tmp_path / "redis") as url:
        yield load_settings(home=tmp_path / "home", project="my-shop", feature_store={"online_url": url})


def test_every_column_is_what_feasts_own_reader_answers(repo, fill, given, settings):
    moment, user_rows = given
    fill(rows_of(user_rows, moment(1)))
    repo.materialize(moment(1), USERS)
    store = FeatureStore(config=repo_config(FeastHome.of(settings)))
    by_feast = store.get_online_features(
        features=store.get_feature_service(USER_SERVICE), entity_rows=[{"user_id": user} for user in USERS]
    ).to_dict(include_event_timestamps=True)

    ours = OnlineFeatures(settings).read_many(USERS, now=moment(1))

    assert [found is not None for found in ours] == [True, True, True, False, True]
    compared = 0
    for row, found in enumerate(ours):
        theirs = {name: by_feast[name][row] for name in COLUMNS}
        if found is None:
            assert set(theirs.values()) == {None}
            continue
        assert found.event_timestamp == datetime.fromtimestamp(by_feast["history_items__ts"][row], UTC)
        assert dict(found.statistics) == {name: theirs[name] for name in SCALAR_STATISTICS}
        assert {type(value) for value in found.statistics.values()} == {
            type(theirs[name]) for name in SCALAR_STATISTICS
        }
        for name in ("history_items", "recent_items", "recent_times"):
            assert list(getattr(found, name)) == (theirs[name] or [])
        for name in ("history_weights", "history_ages_days"):
            assert getattr(found, name).tolist() == (theirs[name] or [])
        assert list(found.category_shares) == (theirs["top_categories"] or [])
        assert list(found.category_shares.values()) == (theirs["top_category_shares"] or [])
        compared += len(found.history_items)
    assert compared == 304


def test_a_users_key_is_feasts_own():
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    for user in USERS:
        key = EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])
        assert entity_key(user) == serialize_entity_key(key, entity_key_serialization_version=3)


def test_reading_needs_no_feast():
    looked = "import sys, feature_repo.online; print('feast' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_who_may_not_wait_is_told_of_a_writer_or_a_server_and_who_may_waits(repo, fill, given, settings, tmp_path):
    moment, user_rows = given
    fill(rows_of(user_rows, moment(1)))
    repo.materialize(moment(1), USERS)
    if settings.feature_store.online_url is not None:
        with pytest.raises(WouldWaitError):
            OnlineFeatures(settings).read_at_once("ann", now=moment(1))
        return
    # In our own file readers read on while somebody writes. In one that Feast made by itself they cannot.
    plain = load_settings(home=tmp_path / "plain", project="my-shop")
    file = FeastHome.of(plain).online
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(FeastHome.of(settings).online)) as ours:
        ours.execute("VACUUM INTO ?", (str(file),))
    online = OnlineFeatures(plain)
    assert online.read_at_once("ann", now=moment(1)).statistics == online.read("ann", now=moment(1)).statistics
    with closing(sqlite3.connect(file, isolation_level=None)) as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(WouldWaitError):
            online.read_at_once("ann", now=moment(1))
        waiting = pool.submit(online.read, "ann", now=moment(1))
        assert wait([waiting], timeout=0.2).not_done
        writer.execute("COMMIT")
        assert waiting.result(timeout=10) is not None
    assert online.read_at_once("ann", now=moment(1)) is not None
