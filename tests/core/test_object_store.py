"""The store on a real S3 server: what is committed, who may write, what a reader sees."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import Bucket, object_store

from components.core.errors import ArtifactError, BusyError
from components.core.hashing import file_sha256
from components.core.lease import Lease, LeaseTakenError
from components.core.store import Store

pytestmark = pytest.mark.slow

HOLDER = """
import sys, time
from components.core.store import Store
with Store(sys.argv[1]).lock("run", doing="testing"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with object_store(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture
def root(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return f"{bucket.uri}/{request.node.name}"


@pytest.fixture
def store(root: str, tmp_path: Path) -> Store:
    return Store(root, cache=tmp_path / "cache")


def commit(store: Store, folder: str, files: dict[str, str]) -> None:
    with store.staging() as staged:
        for name, text in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_text(text)
        store.commit_folder(staged, folder, last="manifest.json")


def test_a_folder_is_committed_with_its_mark_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put, order = store.fs.put_file, []

    def recorded(local: str, remote: str) -> None:
        order.append(remote.rsplit("/", 1)[-1])
        put(local, remote)

    monkeypatch.setattr(store.fs, "put_file", recorded)
    commit(store, "graph/ab12", {"manifest.json": "{}", "a/edges.parquet": "e", "z.parquet": "z"})
    assert order == ["edges.parquet", "z.parquet", "manifest.json"]
    assert store.list_dir("graph/ab12") == ["a", "manifest.json", "z.parquet"]


def test_a_death_before_the_mark_leaves_no_artifact_and_the_next_try_is_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.fs.put_file

    def dies(local: str, remote: str) -> None:
        if remote.endswith("manifest.json"):
            raise KeyboardInterrupt
        put(local, remote)

    files = {"manifest.json": "{}", "edges.parquet": "e"}
    with monkeypatch.context() as patch:
        patch.setattr(store.fs, "put_file", dies)
        with pytest.raises(KeyboardInterrupt):
            commit(store, "graph/ab12", files)
    assert not store.exists("graph/ab12/manifest.json")
    commit(store, "graph/ab12", files)
    assert store.list_dir("graph/ab12") == ["edges.parquet", "manifest.json"]


def test_what_another_process_writes_or_deletes_is_seen_at_once(store: Store, root: str) -> None:
    other = "import sys; from components.core.store import Store; s = Store(sys.argv[1]); exec(sys.argv[2])"
    assert store.list_dir("runs") == []
    subprocess.run([sys.executable, "-c", other, root, "s.write_json('runs/a.json', {'n': 1})"], check=True)
    assert store.list_dir("runs") == ["a.json"]
    assert store.read_json("runs/a.json") == {"n": 1}
    subprocess.run([sys.executable, "-c", other, root, "s.write_json('runs/a.json', {'n': [2] * 99})"], check=True)
    assert store.read_json("runs/a.json") == {"n": [2] * 99}
    subprocess.run([sys.executable, "-c", other, root, "s.delete('runs')"], check=True)
    assert store.list_dir("runs") == []
    assert not store.exists("runs/a.json")


def test_a_fetched_file_is_checked_and_a_missing_one_is_a_sentence(store: Store, tmp_path: Path) -> None:
    (tmp_path / "day.parquet").write_bytes(b"rows")
    sha256 = file_sha256(tmp_path / "day.parquet")
    store.put_file(tmp_path / "day.parquet", "tables/day.parquet")
    assert store.fetch("tables/day.parquet", sha256=sha256).read_bytes() == b"rows"
    with pytest.raises(ArtifactError, match="is not what was written"):
        store.fetch("tables/day.parquet", sha256="0" * 64)
    with pytest.raises(ArtifactError, match=r"none.parquet is missing. Run the step that makes it again"):
        store.fetch("tables/none.parquet", sha256="1" * 64)


def test_a_second_writer_is_kept_out_and_let_in_afterwards(store: Store, root: str) -> None:
    with store.lock("run", doing="testing"):
        with pytest.raises(BusyError, match="Another process is testing"), Store(root).lock("run", doing="testing"):
            pass
        with store.lock("other", doing="something else"):
            pass
    with store.lock("run", doing="testing"):
        pass
    assert store.list_dir("locks") == []


def test_a_killed_holder_keeps_others_out_for_the_lease_alone(store: Store, root: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    path = store.path("locks/run.json")
    with pytest.raises(LeaseTakenError):
        Lease(store.fs, path).acquire()
    time.sleep(2)  # the server counts whole seconds
    taken = [Lease(store.fs, path, lease_seconds=1) for _ in range(2)]
    taken[0].acquire()
    with pytest.raises(LeaseTakenError):
        taken[1].acquire()
    assert taken[0].renew()
    taken[0].release()
    assert store.list_dir("locks") == []


def test_a_lease_that_was_taken_over_is_neither_renewed_nor_released_by_its_old_holder(store: Store) -> None:
    path = store.path("locks/run.json")
    old, new = Lease(store.fs, path), Lease(store.fs, path, lease_seconds=-1)
    old.acquire()
    new.acquire()
    assert not old.renew()
    old.release()
    assert new.renew()
