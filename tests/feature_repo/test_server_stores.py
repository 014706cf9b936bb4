"""Redis as the online store and PostgreSQL as the registry: the behaviours of the embedded ones, and their own."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_client
import services
from pydantic import SecretStr
from test_online_store import (  # noqa: F401  # the same behaviours, with the settings below
    publish,
    test_a_clock_behind_the_features_does_not_make_them_younger,
    test_a_read_ages_the_features_to_now,
    test_many_users_are_read_in_the_order_asked_and_repeats_are_answered,
    test_projects_with_one_home_share_no_feature,
    test_the_age_of_features_does_not_depend_on_the_machines_time_zone,
    test_the_newer_row_stays_whoever_writes_last,
    test_the_same_moment_again_replaces_the_row,
    test_threads_share_a_reader_and_read_on_while_a_run_writes,
    test_unknown_users_are_none_and_users_without_history_are_not,
    test_who_is_not_in_the_snapshot_is_forgotten_and_newer_rows_are_not,
)

from components.core.errors import FeatureStoreError
from components.core.schemas import ITEM_STATISTICS, USER_HISTORY, USER_STATISTICS
from components.core.settings import Settings, load_settings
from feature_repo.layout import FeastHome
from feature_repo.online import OnlineFeatures
from feature_repo.store import FeatureRepo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with services.redis(tmp_path_factory.mktemp("redis")) as online, services.postgres("feast") as database:
        yield online, database("feast")


@pytest.fixture
def settings(servers: tuple[str, str], tmp_path: Path) -> Settings:
    """A shop of its own name in servers that all tests share."""
    online, registry = servers
    return load_settings(
        home=tmp_path / "home",
        project=f"shop-{uuid.uuid4().hex[:8]}",
        feature_store={"online_url": online, "registry_url": registry},
    )


def test_another_machine_reads_what_one_wrote(repo, fill, given, settings, tmp_path):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["jam"])], moment(1))
    elsewhere = settings.model_copy(update={"home": tmp_path / "another-machine"})

    assert OnlineFeatures(elsewhere).read("ann", now=moment(1)).history_items == ["jam"]
    assert FeastHome.of(elsewhere).online_moment() == moment(1)
    assert not repo.home.online.exists()
    assert not repo.home.registry.exists()


def test_shops_in_one_redis_share_no_user(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["jam"])], moment(1))
    other = settings.model_copy(update={"project": settings.project.replace("-", "_")})
    other_repo = FeatureRepo(FeastHome.of(other))
    other_repo.apply()

    assert OnlineFeatures(other).read("ann", now=moment(1)) is None
    schemas = {"user_history": USER_HISTORY, "user_statistics": USER_STATISTICS, "item_statistics": ITEM_STATISTICS}
    other_repo.write_offline({view: schema.empty_table() for view, schema in schemas.items()})
    assert other_repo.materialize(moment(1), []) == 0  # an empty snapshot forgets this shop's users, and nobody else's
    assert OnlineFeatures(settings).read("ann", now=moment(1)) is not None


def test_a_snapshot_that_a_kill_cut_short_does_not_stand(repo, fill, given, settings, monkeypatch):
    moment, user_rows = given
    rows = [user_rows("ann", moment(1), items=["jam"])]
    publish(repo, fill, rows, moment(1))
    fill(rows)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(repo, "_materialize", dies)
    with pytest.raises(KeyboardInterrupt):
        repo.materialize(moment(1), ["ann"])
    assert FeastHome.of(settings).online_moment() is None


def test_a_redis_that_was_emptied_does_not_stand(repo, fill, given, settings):
    moment, user_rows = given
    publish(repo, fill, [user_rows("ann", moment(1), items=["jam"])], moment(1))
    redis_client.Redis.from_url(settings.feature_store.online_url.get_secret_value()).flushall()
    assert FeastHome.of(settings).online_moment() is None


def test_a_redis_that_is_down_or_silent_is_one_error_that_names_no_password(repo, fill, given, settings, tmp_path):
    moment, _ = given
    with services.redis(tmp_path / "own") as url:
        password = url.replace("redis://", "redis://:hunter2@")
        client = redis_client.Redis.from_url(url)
        client.config_set("requirepass", "hunter2")
        stores = settings.feature_store.model_copy(update={"online_url": SecretStr(password)})
        own = settings.model_copy(update={"feature_store": stores})
        own_repo = FeatureRepo(FeastHome.of(own))
        own_repo.apply()
        reader = OnlineFeatures(own)
        assert reader.read("ann", now=moment(1)) is None
        pid = redis_client.Redis.from_url(password).info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(FeatureStoreError, match="cannot be read") as silent:
                reader.read("ann", now=moment(1))
        finally:
            os.kill(pid, signal.SIGCONT)
    with pytest.raises(FeatureStoreError, match="cannot be read") as down:
        reader.read("ann", now=moment(1))
    assert "hunter2" not in str(silent.value) + str(down.value)
    assert "hunter2" not in repr(own)
    assert FeastHome.of(own).online_moment() is None
