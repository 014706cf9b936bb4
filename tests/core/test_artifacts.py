"""Artifacts: what makes a folder one, and how damage is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from two_steps import Steps

from components.core.artifact import MANIFEST, Artifact, ArtifactRef
from components.core.errors import ArtifactError
from components.core.settings import load_settings
from components.core.store import Store


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_manifest(ref: ArtifactRef, **changes: object) -> None:
    path = Path(ref.uri) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def total(steps: Steps) -> ArtifactRef:
    return steps.sum(steps.list_numbers()).ref


def test_a_whole_artifact_opens_and_verifies(store: Store, total: ArtifactRef) -> None:
    artifact = Artifact.open(store, total.uri, sha256=total.sha256, kind="total")
    artifact.verify()
    assert artifact.file_names == ["timings.html", "total.txt"]
    assert artifact.path("total.txt").read_text() == "6"
    assert artifact.manifest.ref() == total


def test_lineage_is_in_the_manifest(store: Store, total: ArtifactRef) -> None:
    (source,) = Artifact.open(store, total.uri).manifest.inputs
    assert source.kind == "numbers"
    assert Artifact.open(store, source.uri, sha256=source.sha256).manifest.inputs == []


def test_one_flipped_bit_is_noticed(store: Store, total: ArtifactRef) -> None:
    flip_one_bit(Path(total.uri) / "total.txt")
    artifact = Artifact.open(store, total.uri)
    with pytest.raises(ArtifactError, match=r"total\.txt is not what was written"):
        artifact.path("total.txt")
    with pytest.raises(ArtifactError, match=r"total\.txt is not what was written"):
        artifact.verify()


def test_a_missing_file_is_noticed(store: Store, total: ArtifactRef) -> None:
    (Path(total.uri) / "total.txt").unlink()
    with pytest.raises(ArtifactError, match=r"total\.txt is missing"):
        Artifact.open(store, total.uri).verify()


def test_a_folder_without_its_manifest_is_no_artifact(store: Store, total: ArtifactRef) -> None:
    (Path(total.uri) / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="is no finished artifact"):
        Artifact.open(store, total.uri)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"kind": "total"}'])
def test_a_manifest_that_cannot_be_read_is_named(store: Store, total: ArtifactRef, text: str) -> None:
    (Path(total.uri) / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest\.json cannot be read"):
        Artifact.open(store, total.uri)


def test_a_manifest_that_was_made_to_fit_changed_files_is_not_the_artifact_asked_for(
    store: Store, total: ArtifactRef
) -> None:
    manifest = json.loads((Path(total.uri) / MANIFEST).read_text())
    for entry in manifest["files"]:
        entry["sha256"] = "0" * 64
    change_manifest(total, files=manifest["files"])
    with pytest.raises(ArtifactError, match="its content hash differs"):
        Artifact.open(store, total.uri)


@pytest.mark.parametrize("change", [{"kind": "other"}, {"content_sha256": "0" * 64}])
def test_a_tampered_manifest_is_noticed(store: Store, total: ArtifactRef, change: dict[str, str]) -> None:
    change_manifest(total, **change)
    with pytest.raises(ArtifactError, match="its content hash differs"):
        Artifact.open(store, total.uri)


@pytest.mark.parametrize("change", [{"rows": 2}, {"statistics": {"total": 7}}, {"as_of": "2024-05-02T00:00:00Z"}])
def test_what_no_files_hash_speaks_for_is_under_the_manifests_seal(
    store: Store, total: ArtifactRef, change: dict[str, object]
) -> None:
    change_manifest(total, **change)
    with pytest.raises(ArtifactError, match=r"manifest\.json is not what was written"):
        Artifact.open(store, total.uri, sha256=total.sha256)


def test_another_format_asks_for_another_run(store: Store, total: ArtifactRef) -> None:
    change_manifest(total, format_version=99)
    with pytest.raises(ArtifactError, match=r"has format 99, this version reads 2\. Run the step again"):
        Artifact.open(store, total.uri)


def test_an_artifact_is_what_the_caller_expects_or_an_error(store: Store, total: ArtifactRef) -> None:
    with pytest.raises(ArtifactError, match="is of kind 'total', 'graph' was expected"):
        Artifact.open(store, total.uri, kind="graph")
    with pytest.raises(ArtifactError, match="its content hash differs"):
        Artifact.open(store, total.uri, sha256="0" * 64)
    with pytest.raises(ArtifactError, match="is not under the artifact root"):
        Artifact.open(store, "/elsewhere/total/1", kind="total")
    with pytest.raises(ArtifactError, match=r"has no file 'sum\.txt'; it has: timings\.html, total\.txt"):
        Artifact.open(store, total.uri).path("sum.txt")


def test_equal_work_gives_equal_hashes_whatever_the_run_the_place_and_the_report(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        steps = Steps(load_settings(home=tmp_path / name))
        steps.runs["sum"] = len(hashes) * 10  # goes into the report's text
        hashes.add(steps.sum(steps.list_numbers(), run_id=name).ref.sha256)
    assert len(hashes) == 1


def test_a_remote_artifact_is_copied_once_and_checked(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", storage_root="memory://bucket")
    total = Steps(settings)
    ref = total.sum(total.list_numbers()).ref
    store = Store(settings.artifact_root, cache=tmp_path / "cache")
    folder = Artifact.open(store, ref.uri, sha256=ref.sha256).local_folder(tmp_path / "copies")
    assert (folder / "total.txt").read_text() == "6"
    assert json.loads((folder / MANIFEST).read_text())["content_sha256"] == ref.sha256
    store.fs.pipe_file(store.path(f"{store.relative(ref.uri)}/total.txt"), b"7")
    fresh = Store(settings.artifact_root, cache=tmp_path / "other-cache")
    for _ in range(2):  # a bad copy is not kept as if it were good
        with pytest.raises(ArtifactError, match=r"total\.txt is not what was written"):
            Artifact.open(fresh, ref.uri).path("total.txt")
