"""Fresh behaviour: one suite over every store that holds it, and a worker's view of them."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from components.core.sections import ServeSettings
from serving.fresh import Caps, Charge, FreshBehaviour, FreshEvent, FreshStore, FreshStoreError
from serving.fresh_redis import RedisFresh
from serving.fresh_sqlite import SqliteFresh
from tests.needs import program

LIMITS = ServeSettings(fresh_events=3)
Opener = Callable[[], FreshStore]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [program("redis-server", package="redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    try:
        for _ in range(100):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        client.close()
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same store anew, as another worker does."""
    opened: list[FreshStore] = []
    url = request.getfixturevalue("redis_url") if request.param == "redis" else ""

    def open_one() -> FreshStore:
        if request.param == "redis":
            opened.append(RedisFresh(url, project=tmp_path.name, limits=LIMITS))
        else:
            opened.append(SqliteFresh(tmp_path / "fresh.db", limits=LIMITS))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def event(name: str, *, seconds: float = 0, item: str = "a", weight: float = 1.0) -> FreshEvent:
    return FreshEvent(name, item, weight, seconds)


def test_what_one_worker_keeps_another_reads_latest_first(opener: Opener) -> None:
    one, other = opener(), opener()
    one.add([("u", event("1", seconds=1)), ("v", event("2", seconds=2)), ("u", event("3", seconds=3, item="b"))])
    assert other.read(["u", "w", "v"]) == [
        [event("3", seconds=3, item="b"), event("1", seconds=1)],
        [],
        [event("2", seconds=2)],
    ]


def test_an_event_that_is_sent_again_is_kept_once(opener: Opener) -> None:
    store = opener()
    store.add([("u", event("1"))])
    store.add([("u", event("1")), ("v", event("1"))])
    assert store.read(["u", "v"]) == [[event("1")], [event("1")]]


def test_only_the_latest_events_of_a_user_are_kept(opener: Opener) -> None:
    store = opener()
    store.add([("u", event(str(n), seconds=n)) for n in range(10)])
    store.add([("u", event("old", seconds=-1))])
    assert [one.event_id for one in store.read(["u"])[0]] == ["9", "8", "7"]


def test_a_forgotten_user_has_no_events_and_every_worker_is_told(opener: Opener) -> None:
    one, other = opener(), opener()
    one.add([("u", event("1")), ("v", event("2"))])
    stamp = other.changes(None).stamp
    assert one.forget("u") == 1
    assert other.read(["u", "v"]) == [[], [event("2")]]
    assert other.changes(stamp).users == ["u"]


def test_changes_name_who_changed_since_and_nobody_twice(opener: Opener) -> None:
    one, other = opener(), opener()
    start = other.changes(None)
    assert start.users is None
    assert list(other.changes(start.stamp).users or ()) == []
    one.add([("u", event("1")), ("u", event("2"))])
    one.add([("v", event("1"))])
    later = other.changes(start.stamp)
    assert sorted(later.users or ()) == ["u", "v"]
    assert list(other.changes(later.stamp).users or ()) == []


def test_a_user_and_a_key_of_a_user_have_caps_that_all_workers_share(opener: Opener) -> None:
    one, other = opener(), opener()
    caps = Caps(user=3, key_and_user=2)

    def spend(store: FreshStore, key: str, *weights: float, user: str = "u", day: str = "2020-01-01") -> list[bool]:
        return store.spend([Charge(user, weight) for weight in weights], day=day, key=key, caps=caps)

    assert spend(one, "web", 1, 1, 1) == [True, True, False]  # the key's cap
    assert spend(other, "app", 1, 1) == [True, False]  # the user's
    assert spend(other, "web", 0.5) == [False]
    assert spend(one, "web", 1, user="v") == [True]
    assert spend(one, "web", 2, day="2020-01-02") == [True]


def test_a_worker_sees_another_workers_events_after_one_look_and_its_own_at_once(opener: Opener) -> None:
    one, other = (FreshBehaviour(opener(), poll_seconds=60) for _ in range(2))
    other.look()
    assert other.of("u") == []
    one.add([("u", event("1"))])
    assert one.of("u") == [event("1")]
    assert other.of("u") == []  # its copy: nothing is asked until the next look
    other.look()
    assert other.of_many(["u", "v"]) == [[event("1")], []]


def test_a_user_at_hand_is_not_asked_for_again(opener: Opener) -> None:
    store = opener()
    asked: list[list[str]] = []
    read = store.read
    store.read = lambda users: (asked.append(list(users)), read(users))[1]  # type: ignore[method-assign]
    behaviour = FreshBehaviour(store, poll_seconds=60)
    for _ in range(3):
        behaviour.of("u")
    behaviour.of_many(["u", "v"])
    behaviour.look()
    behaviour.look()
    behaviour.of("u")
    assert asked == [["u"], ["v"], ["u"]]  # the first look does not know what changed before it


def test_copies_are_bounded(opener: Opener) -> None:
    behaviour = FreshBehaviour(opener(), poll_seconds=60, users_at_hand=10)
    for n in range(95):
        behaviour.of(f"u{n}")
    assert len(behaviour._at_hand) <= 10


def test_a_file_that_is_replaced_is_another_store(tmp_path: Path) -> None:
    path = tmp_path / "fresh.db"
    behaviour = FreshBehaviour(SqliteFresh(path, limits=LIMITS), poll_seconds=60)
    behaviour.look()
    behaviour.add([("u", event("1"))])
    for file in tmp_path.iterdir():
        file.unlink()
    behaviour.look()
    assert behaviour.of("u") == []
    behaviour.add([("u", event("2"))])
    assert behaviour.of("u") == [event("2")]
    behaviour.stop()


def test_events_older_than_their_time_are_not_read_and_go(tmp_path: Path) -> None:
    now = [1_000_000.0]
    store = SqliteFresh(tmp_path / "fresh.db", limits=ServeSettings(fresh_days=2), clock=lambda: now[0])
    store.add([("u", event("1"))])
    now[0] += 3 * 86_400
    assert store.read(["u"]) == [[]]
    store.add([("v", event("2"))])
    store.close()
    now[0] -= 3 * 86_400
    assert SqliteFresh(tmp_path / "fresh.db", limits=LIMITS, clock=lambda: now[0]).read(["u"]) == [[]]


def test_a_store_that_is_no_database_is_away_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "fresh.db"
    path.write_text("no database, by far" * 100)
    behaviour = FreshBehaviour(SqliteFresh(path, limits=LIMITS), poll_seconds=60)
    with pytest.raises(FreshStoreError, match=r"fresh\.db cannot be used"):
        behaviour.of("u")
    behaviour.look()  # never raises
    path.unlink()
    assert behaviour.of("u") == []


@pytest.mark.slow
def test_while_redis_is_down_nobody_waits_for_it_and_it_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    command = [program("redis-server", package="redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(tmp_path)]
    behaviour = FreshBehaviour(
        RedisFresh(f"redis://127.0.0.1:{port}/0", project="shop", limits=LIMITS), poll_seconds=0.05
    )

    def until_up(is_up: bool) -> None:
        deadline = time.monotonic() + 20
        while behaviour._is_down is is_up:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    behaviour.start()
    try:
        for _ in range(2):
            until_up(False)
            with pytest.raises(FreshStoreError, match="away"):
                behaviour.of("u")
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                until_up(True)
                behaviour.add([("u", event("1"))])
                assert behaviour.of("u") == [event("1")]
            finally:
                server.terminate()
                server.wait(timeout=10)
    finally:
        behaviour.stop()
