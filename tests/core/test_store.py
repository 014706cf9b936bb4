"""The store: whole or not at all, and one writer at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.core import store as store_module
from components.core.errors import ArtifactError, BusyError
from components.core.store import Store, write_file_whole

LOCK_HOLDER = """
import sys, time
from components.core.store import Store
with Store(sys.argv[1]).lock("run", doing="testing"):
    print("held", flush=True)
    time.sleep(60)
"""


def files_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def broken(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_small_file_is_replaced_whole_or_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_json("deploy/pointer.json", {"bundle": 1})
    monkeypatch.setattr(store_module.os, "fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        store.write_json("deploy/pointer.json", {"bundle": 2})
    assert store.read_json("deploy/pointer.json") == {"bundle": 1}
    assert store.list_dir("deploy") == ["pointer.json"]  # no half-written file beside it


def test_what_is_no_json_leaves_the_old_file(store: Store) -> None:
    store.write_json("state.json", {"rows": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        store.write_json("state.json", {"rows": float("nan")})
    assert store.read_json("state.json") == {"rows": 1}


def test_a_secret_file_is_never_readable_by_others(tmp_path: Path) -> None:
    write_file_whole(tmp_path / "key", b"secret", mode=0o600)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("dies_in", ["_flush", "Path.rename"])
def test_a_death_in_mid_commit_leaves_nothing(store: Store, dies_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = (Path, "rename") if dies_in == "Path.rename" else (store_module, "_flush")
    monkeypatch.setattr(*target, broken)
    with pytest.raises(KeyboardInterrupt), store.staging() as folder:  # noqa: PT012 -- the block is what dies
        (folder / "data.txt").write_text("half")
        (folder / "manifest.json").write_text("{}")
        store.commit_folder(folder, "graph/ab12", last="manifest.json")
    assert not store.exists("graph/ab12")
    assert files_under(Path(store.base)) == []


def test_a_folder_that_is_committed_already_is_kept(store: Store) -> None:
    for text in ("first", "second"):
        with store.staging() as folder:
            (folder / "manifest.json").write_text(text)
            store.commit_folder(folder, "graph/ab12", last="manifest.json")
    assert files_under(Path(store.base)) == ["graph/ab12/manifest.json"]
    assert Path(store.path("graph/ab12/manifest.json")).read_text() == "first"


def test_a_folder_without_its_commit_mark_makes_room(store: Store) -> None:
    half = Path(store.path("graph/ab12"))
    half.mkdir(parents=True)
    (half / "data.txt").write_text("half")
    with store.staging() as folder:
        (folder / "manifest.json").write_text("whole")
        store.commit_folder(folder, "graph/ab12", last="manifest.json")
    assert files_under(half) == ["manifest.json"]


def test_on_an_object_store_the_commit_mark_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("memory://commit-order", cache=tmp_path)
    put: list[str] = []
    monkeypatch.setattr(store.fs, "put_file", lambda _, remote: put.append(remote.rsplit("/", 1)[-1]))
    with store.staging() as folder:
        for name in ("z.txt", "manifest.json", "a.txt"):
            (folder / name).write_text(name)
        store.commit_folder(folder, "graph/ab12", last="manifest.json")
    assert put == ["a.txt", "z.txt", "manifest.json"]


def test_a_second_writer_is_refused_and_told_by_what(store: Store) -> None:
    with store.lock("run", doing="testing"):
        sentence = r"^Another process is testing\. Wait for it to finish, then try again\.$"
        with pytest.raises(BusyError, match=sentence), Store(store.root).lock("run", doing="testing"):
            pass
        with store.lock("table-events", doing="another thing"):
            pass
    with store.lock("run", doing="testing"):
        pass


def test_a_lock_dies_with_its_holder(store: Store) -> None:
    command = [sys.executable, "-c", LOCK_HOLDER, store.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError), store.lock("run", doing="testing"):
            pass
        holder.kill()
        holder.wait()
        with store.lock("run", doing="testing"):
            pass


def test_paths_outside_of_the_store_are_refused(store: Store) -> None:
    assert store.relative(f"{store.root}/graph/ab12") == "graph/ab12"
    with pytest.raises(ArtifactError, match="is not under the artifact root"):
        store.relative(f"{store.root}-other/graph/ab12")
