"""Fresh behaviour in a SQLite file (WAL), for the workers of one machine.

`synchronous = NORMAL`: a power cut may cost the last moments here, and nothing in the feedback log, which is what the
pipeline learns from.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from components.core.sections import ServeSettings
from serving.fresh import Caps, Changes, Charge, FreshEvent, FreshStoreError

BUSY_SECONDS = 2.0
DAY_SECONDS = 86_400.0
# A worker that has missed more changes than this forgets all its copies.
CHANGES_KEPT = 50_000
PRUNE_SECONDS = 60.0
USERS_A_READ = 500

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, event_id TEXT NOT NULL, item_id TEXT NOT NULL,
    weight REAL NOT NULL, seconds REAL NOT NULL, received REAL NOT NULL, UNIQUE (user, event_id)
);
CREATE INDEX IF NOT EXISTS events_received ON events (received);
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    day TEXT NOT NULL, user TEXT NOT NULL, key TEXT NOT NULL, weight REAL NOT NULL, received REAL NOT NULL,
    PRIMARY KEY (day, user, key)
) WITHOUT ROWID;
"""


class SqliteFresh:
    """A `FreshStore`. One connection reads and one writes, so a reader never waits for a writer."""

    is_remote = False

    def __init__(self, path: Path, *, limits: ServeSettings, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._limits = limits
        self._clock = clock
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._connections: tuple[sqlite3.Connection, sqlite3.Connection] | None = None
        self._inode: int | None = None
        self._opening = threading.Lock()
        self._pruned_at = 0.0

    def add(self, events: Sequence[tuple[str, FreshEvent]]) -> None:
        now = self._clock()
        users = list(dict.fromkeys(user for user, _ in events))
        rows = [(user, *event, now) for user, event in events]
        with self._write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO events (user, event_id, item_id, weight, seconds, received) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            connection.executemany(
                "DELETE FROM events WHERE user = ?1 AND seq NOT IN "
                "(SELECT seq FROM events WHERE user = ?1 ORDER BY seconds DESC, seq DESC LIMIT ?2)",
                [(user, self._limits.fresh_events) for user in users],
            )
            connection.executemany("INSERT INTO changes (user) VALUES (?)", [(user,) for user in users])
            if now - self._pruned_at > PRUNE_SECONDS:
                self._prune(connection, now)
                self._pruned_at = now

    def read(self, users: Sequence[str]) -> list[list[FreshEvent]]:
        found: dict[str, list[FreshEvent]] = {user: [] for user in users}
        oldest = self._clock() - self._limits.fresh_days * DAY_SECONDS
        with self._read() as connection:
            for start in range(0, len(users), USERS_A_READ):
                some = users[start : start + USERS_A_READ]
                query = f"""
                    SELECT user, event_id, item_id, weight, seconds FROM events
                    WHERE user IN ({",".join("?" * len(some))}) AND received >= ? ORDER BY seconds DESC
                    """  # noqa: S608 (the users are bound)
                rows = connection.execute(query, (*some, oldest))
                for user, *event in rows:
                    found[user].append(FreshEvent(*event))
        return [found[user] for user in users]

    def forget(self, user: str) -> int:
        with self._write() as connection:
            gone = connection.execute("DELETE FROM events WHERE user = ?", (user,)).rowcount
            connection.execute("DELETE FROM spent WHERE user = ?", (user,))
            connection.execute("INSERT INTO changes (user) VALUES (?)", (user,))
        return gone

    def changes(self, since: str | None) -> Changes:
        """The stamp is file and row: another file is another store."""
        with self._read() as connection:
            first, last = connection.execute("SELECT min(seq), max(seq) FROM changes").fetchone()
            stamp = f"{self._inode}:{last or 0}"
            file, _, row = (since or "").partition(":")
            if since is None or file != str(self._inode) or (first is not None and int(row) < first - 1):
                return Changes(None, stamp)
            if int(row) == (last or 0):
                return Changes((), stamp)
            users = connection.execute("SELECT DISTINCT user FROM changes WHERE seq > ?", (int(row),)).fetchall()
        return Changes([user for (user,) in users], stamp)

    def spend(self, charges: Sequence[Charge], *, day: str, key: str, caps: Caps) -> list[bool]:
        fits = []
        now = self._clock()
        with self._write() as connection:
            for user, weight in charges:
                rows = connection.execute("SELECT key, weight FROM spent WHERE day = ? AND user = ?", (day, user))
                spent = dict(rows.fetchall())
                fits.append(
                    sum(spent.values()) + weight <= caps.user and spent.get(key, 0.0) + weight <= caps.key_and_user
                )
                if fits[-1]:
                    connection.execute(
                        "INSERT INTO spent VALUES (?1, ?2, ?3, ?4, ?5) "
                        "ON CONFLICT DO UPDATE SET weight = weight + ?4, received = ?5",
                        (day, user, key, weight, now),
                    )
        return fits

    def close(self) -> None:
        with self._opening:
            for connection in self._connections or ():
                connection.close()
            self._connections = None

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        oldest = now - self._limits.fresh_days * DAY_SECONDS
        connection.execute("DELETE FROM events WHERE received < ?", (oldest,))
        connection.execute("DELETE FROM spent WHERE received < ?", (now - 2 * DAY_SECONDS,))
        connection.execute("DELETE FROM changes WHERE seq <= (SELECT max(seq) FROM changes) - ?", (CHANGES_KEPT,))

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._as_fresh_store_error(), self._reading:
            yield self._open()[0]

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._as_fresh_store_error(), self._writing:
            connection = self._open()[1]
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back
                yield connection

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """The connections; opened anew where the file was replaced or taken away."""
        with self._opening:
            inode = self.path.stat().st_ino if self.path.exists() else None
            if self._connections is None or inode != self._inode:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._connections = (self._connect(), self._connect())
                self._inode = self.path.stat().st_ino
            return self._connections

    def _connect(self) -> sqlite3.Connection:
        # Its users are told apart by our locks, not by SQLite's check of threads.
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
        connection.executescript(SCHEMA)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @contextmanager
    def _as_fresh_store_error(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            with self._opening:
                self._connections = None  # opened anew at the next try
            raise FreshStoreError(f"{self.path.name} cannot be used ({type(error).__name__}: {error})") from error
