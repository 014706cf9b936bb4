"""A backup is whole or none, and a restore writes over nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from components.core.artifact import ArtifactRef
from components.core.backup import backup, restore
from components.core.errors import ArtifactError
from components.core.live import move_pointer, read_pointer
from components.core.settings import Settings, load_settings
from components.core.store import Store

BUNDLE = ArtifactRef(kind="bundle", uri="/somewhere/bundle/ab", sha256="ab" * 32, rows=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A project with a bundle, a pointer, a database in WAL mode, and what no backup wants."""
    made = load_settings(home=tmp_path / "home", project="shop")
    store = Store(made.artifact_root)
    store.write_json("bundle/ab/manifest.json", {"rows": 3})
    store.write_json("locks/step-train.lock", {})
    move_pointer(store, BUNDLE, previous=None, run_id="one")
    (made.project_home / "feast").mkdir()
    (made.project_home / "logs").mkdir()
    (made.project_home / "logs" / "run.log").write_text("long")
    with closing(sqlite3.connect(made.home / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE runs (name)")
        connection.commit()
    return made


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_not_yet_in_a_databases_file_is_in_its_backup(settings: Settings, tmp_path: Path) -> None:
    database = settings.project_home / "feast" / "online.db"
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE users (name)")
        writer.execute("INSERT INTO users VALUES ('ann')")
        writer.commit()
        assert (database.parent / "online.db-wal").stat().st_size > 0
        backup(settings, str(tmp_path / "backup"))
    with closing(sqlite3.connect(tmp_path / "backup" / "home" / "shop" / "feast" / "online.db")) as copy:
        assert copy.execute("SELECT name FROM users").fetchall() == [("ann",)]


def test_a_backup_has_what_is_worth_keeping_and_a_restore_gives_it_back(settings: Settings, tmp_path: Path) -> None:
    done = backup(settings, str(tmp_path / "backup"))
    assert files(tmp_path / "backup") == [
        "artifacts/bundle/ab/manifest.json",
        "artifacts/deploy/pointer.json",
        "backup.json",
        "home/mlflow.db",
    ]
    assert done.files == 3
    settings.home.rename(tmp_path / "gone")
    assert restore(settings, str(tmp_path / "backup")) == done
    store = Store(settings.artifact_root)
    pointer = read_pointer(store)
    assert pointer is not None
    assert pointer.bundle == BUNDLE
    assert store.read_json("bundle/ab/manifest.json") == {"rows": 3}


def test_a_damaged_backup_restores_nothing(settings: Settings, tmp_path: Path) -> None:
    backup(settings, str(tmp_path / "backup"))
    (tmp_path / "backup" / "artifacts" / "bundle" / "ab" / "manifest.json").write_text('{"rows": 4}')
    settings.home.rename(tmp_path / "gone")
    with pytest.raises(ArtifactError, match="is not what was written"):
        restore(settings, str(tmp_path / "backup"))
    assert not settings.home.exists()


def test_a_backup_that_was_cut_short_is_none(settings: Settings, tmp_path: Path) -> None:
    backup(settings, str(tmp_path / "backup"))
    (tmp_path / "backup" / "backup.json").unlink()
    settings.home.rename(tmp_path / "gone")
    with pytest.raises(ArtifactError, match=r"is no whole backup: it has no backup\.json"):
        restore(settings, str(tmp_path / "backup"))


def test_nothing_is_written_over(settings: Settings, tmp_path: Path) -> None:
    backup(settings, str(tmp_path / "backup"))
    with pytest.raises(ArtifactError, match=r"is there already\. Restore where nothing is"):
        restore(settings, str(tmp_path / "backup"))
    with pytest.raises(ArtifactError, match=r"is not empty\. Give each backup a folder of its own"):
        backup(settings, str(tmp_path / "backup"))


def test_a_backup_goes_back_to_where_it_was_made_alone(settings: Settings, tmp_path: Path) -> None:
    backup(settings, str(tmp_path / "backup"))
    elsewhere = settings.model_copy(update={"home": tmp_path / "other"})
    with pytest.raises(ArtifactError, match="Set project, home and storage_root as they were"):
        restore(elsewhere, str(tmp_path / "backup"))


def test_there_must_be_something_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="There is nothing under"):
        backup(load_settings(home=tmp_path / "none", project="shop"), str(tmp_path / "backup"))
