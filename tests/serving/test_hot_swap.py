"""The pointer moves, and a worker swaps; whatever is wrong with the new bundle, the old one goes on serving."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import shutil
import threading
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

import serving.following
import serving.loading
from components.core.artifact import Artifact, ArtifactRef
from components.core.errors import ArtifactError
from components.core.live import POINTER, move_pointer
from components.core.settings import Settings, load_settings
from components.core.store import Store
from components.deploy.step import check_golden
from serving.loading import turn
from serving.schemas import RecommendRequest
from serving.state import ServiceState

MakeBundle = Callable[..., ArtifactRef]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path)


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.artifact_root)


@pytest.fixture
def point(store: Store) -> Callable[[ArtifactRef], None]:
    def to(ref: ArtifactRef) -> None:
        move_pointer(store, ref, previous=None, run_id="run-1")

    return to


@pytest.fixture
def live(settings: Settings, make_bundle: MakeBundle, point: Callable[[ArtifactRef], None]) -> ServiceState:
    """A worker that serves bundle 'a'."""
    point(make_bundle(settings, "a"))
    state = ServiceState(settings)
    state.refresh()
    assert state.reason is None
    return state


def serving_now(state: ServiceState) -> str | None:
    return state.current.bundle.sha256 if state.current else None


def test_without_a_pointer_a_worker_is_not_ready_and_says_what_to_do(settings: Settings) -> None:
    state = ServiceState(settings)
    state.refresh()
    assert state.current is None
    assert state.reason == "There is no deploy pointer yet. Run the pipeline, or serve a bundle by --bundle."


def test_a_worker_swaps_when_the_pointer_moves(
    live: ServiceState, settings: Settings, make_bundle: MakeBundle, point: Callable[[ArtifactRef], None]
) -> None:
    before = live.current
    other = make_bundle(settings, "b")
    assert serving_now(live) != other.sha256
    point(other)
    live.refresh()
    assert serving_now(live) == other.sha256
    assert live.workers() == {other.sha256: 1}
    # A request that began on the old bundle still ends on it.
    assert before is not None
    assert before.bundle.sha256 != other.sha256


def test_the_old_bundle_goes_with_its_last_request_and_no_collection_looks_at_the_new_one(
    live: ServiceState, settings: Settings, make_bundle: MakeBundle, point: Callable[[ArtifactRef], None]
) -> None:
    assert live.current is not None
    live.current.recommend(RecommendRequest(items=["dairy-1"]), None)
    old = [weakref.ref(one) for one in (live.current, live.current.bundle, live.current.retrieval.tables)]
    point(make_bundle(settings, "b"))
    live.refresh()
    gc.disable()  # a collection could not find it: it is frozen
    try:
        assert [one() for one in old] == [None, None, None]
        assert live.current is not None
        collected = gc.get_objects()  # without what is frozen
        assert not any(one is live.current or one is live.current.bundle.items.item_ids for one in collected)
    finally:
        gc.enable()


def test_an_unmoved_pointer_loads_nothing(live: ServiceState) -> None:
    before = live.current
    live.refresh()
    assert live.current is before


@pytest.mark.parametrize("damage", ["one bit", "truncated", "missing", "golden answer"])
def test_a_damaged_bundle_is_refused_and_the_old_one_serves(
    live: ServiceState,
    settings: Settings,
    make_bundle: MakeBundle,
    point: Callable[[ArtifactRef], None],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = serving_now(live)
    other = make_bundle(settings, "b", spoil_golden=damage == "golden answer")
    file = Path(other.uri) / "vectors.safetensors"
    if damage == "one bit":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing":
        file.unlink()
    point(other)
    with caplog.at_level(logging.ERROR):
        live.refresh()
        live.refresh()
    assert serving_now(live) == old
    assert live.reason
    assert [record.message for record in caplog.records] == [
        f"A bundle was refused, {old[:12]} goes on serving: {live.reason}"
    ]


def test_a_pointer_to_nothing_is_refused(
    live: ServiceState, point: Callable[[ArtifactRef], None], store: Store
) -> None:
    old = serving_now(live)
    point(ArtifactRef(kind="bundle", uri=store.uri("bundle/none"), sha256="0" * 64, rows=1))
    live.refresh()
    assert serving_now(live) == old
    assert "is no finished artifact" in live.reason


def test_a_pointer_with_another_hash_is_refused(
    live: ServiceState, settings: Settings, make_bundle: MakeBundle, point: Callable[[ArtifactRef], None]
) -> None:
    old = serving_now(live)
    point(make_bundle(settings, "b").model_copy(update={"sha256": "0" * 64}))
    live.refresh()
    assert serving_now(live) == old
    assert "content hash differs" in live.reason


@pytest.mark.parametrize("text", ["", "{", "[]", '{"bundle": 1}'])
def test_a_torn_pointer_changes_nothing(live: ServiceState, store: Store, text: str) -> None:
    old = serving_now(live)
    Path(store.path(POINTER)).write_text(text)
    live.refresh()
    assert serving_now(live) == old
    assert "cannot be read" in live.reason


def test_a_vanished_pointer_changes_nothing(live: ServiceState, store: Store) -> None:
    old = serving_now(live)
    store.delete(POINTER)
    live.refresh()
    assert serving_now(live) == old


def test_a_refused_bundle_is_tried_again_ever_more_rarely_and_taken_when_it_is_mended(
    live: ServiceState,
    settings: Settings,
    make_bundle: MakeBundle,
    point: Callable[[ArtifactRef], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(serving.following.time, "monotonic", lambda: now)
    other = make_bundle(settings, "b")
    away = settings.home / "away"
    shutil.move(other.uri, away)
    point(other)
    tries = []
    original = live._load
    monkeypatch.setattr(live, "_load", lambda *where: (tries.append(now), original(*where))[1])
    for _ in range(400):
        live.refresh()
        now += 0.5
    assert [later - earlier for earlier, later in itertools.pairwise(tries)] == [2, 4, 8, 16, 32, 60, 60]
    shutil.move(away, other.uri)
    now += 60
    live.refresh()
    assert serving_now(live) == other.sha256
    assert live.reason is None


def test_a_pointer_that_goes_back_after_a_refusal_clears_the_reason(
    live: ServiceState, settings: Settings, make_bundle: MakeBundle, point: Callable[[ArtifactRef], None], store: Store
) -> None:
    good = json.loads(Path(store.path(POINTER)).read_text())
    point(ArtifactRef(kind="bundle", uri=store.uri("bundle/none"), sha256="0" * 64, rows=1))
    live.refresh()
    store.write_json(POINTER, good)
    live.refresh()
    assert live.reason is None


def test_a_refused_bundle_that_is_pointed_to_anew_is_tried_at_once(
    live: ServiceState, settings: Settings, make_bundle: MakeBundle, point: Callable[[ArtifactRef], None], store: Store
) -> None:
    good = json.loads(Path(store.path(POINTER)).read_text())
    other, away = make_bundle(settings, "b"), settings.home / "away"
    shutil.move(other.uri, away)
    point(other)
    live.refresh()
    assert live.reason
    shutil.move(away, other.uri)
    live.refresh()
    assert serving_now(live) == good["bundle"]["sha256"]  # its next try is due in two seconds
    store.write_json(POINTER, good)
    live.refresh()
    point(other)
    live.refresh()
    assert serving_now(live) == other.sha256


def test_dead_workers_are_not_counted(live: ServiceState) -> None:
    sha256 = serving_now(live)
    (live._peers / "worker-dead.json").write_text(json.dumps({"pid": 2**22 - 1, "bundle": "old"}))
    (live._peers / "worker-torn.json").write_text("{")
    assert live.workers() == {sha256: 1}
    live.leave()
    assert live.workers() == {}


def test_the_clock_is_the_bundles_unless_it_is_set(settings: Settings, make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder = make_bundle(settings, "a").uri

    def clock(text: str | None) -> datetime:
        state = ServiceState(load_settings(home=tmp_path, serve={"bundle": folder, "clock": text}))
        state.refresh()
        assert state.current is not None
        return state.current.clock()

    assert clock(None) == datetime.fromisoformat("2020-03-01T00:00:00+00:00")
    assert clock("2020-04-01") == datetime.fromisoformat("2020-04-01T00:00:00+00:00")
    assert clock("wall").year >= 2026


def test_a_bundle_that_answers_otherwise_is_not_pointed_to_where_nobody_watches_the_service(
    settings: Settings, store: Store, make_bundle: MakeBundle
) -> None:
    cache = settings.home / "bundles"
    check_golden(Artifact.open(store, make_bundle(settings, "a").uri), cache=cache)
    with pytest.raises(ArtifactError, match="golden answer"):
        check_golden(Artifact.open(store, make_bundle(settings, "b", spoil_golden=True).uri), cache=cache)


def test_a_bundle_on_an_object_store_is_copied_once_and_served(make_bundle: MakeBundle, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, storage_root="memory://bucket")
    store = Store(settings.artifact_root)
    ref = make_bundle(settings, "a")
    move_pointer(store, ref, previous=None, run_id="run-1")
    for _ in range(2):
        state = ServiceState(settings)
        state.refresh()
        assert serving_now(state) == ref.sha256, state.reason
    assert (settings.project_home / "bundles" / ref.sha256 / "manifest.json").is_file()


def test_workers_load_one_after_the_other_and_none_waits_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    has_begun, may_end = threading.Event(), threading.Event()

    def first() -> None:
        with turn(tmp_path / "turn"):
            has_begun.set()
            may_end.wait(60)
            order.append("first")

    def second() -> None:
        with turn(tmp_path / "turn"):
            order.append("second")

    threads = [threading.Thread(target=one) for one in (first, second)]
    threads[0].start()
    assert has_begun.wait(60)
    with monkeypatch.context() as patched:
        patched.setattr(serving.loading, "TURN_SECONDS", 0.0)
        with turn(tmp_path / "turn"):
            order.append("impatient")
    threads[1].start()
    threads[1].join(0.2)  # it does not get on
    may_end.set()
    for one in threads:
        one.join()
    assert order == ["impatient", "first", "second"]
