"""A process that runs the pipeline's steps in forked children to which something happens: `python fault_process.py`.

It reads one JSON request a line and answers with one. Libraries are imported once, so that a run costs what the step
costs; a child is the real command line, `basketweave step …`, up to the moment at which the fault strikes. Moments are
counted in what Python's audit hooks see of the home's files: opened, made, renamed, deleted. Where the test runs in
another mount namespace than the home, it sees the home through this process alone.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.core.artifact import MANIFEST, Artifact
from components.core.command import PIPELINE, load_step
from components.core.day_table import DayTable
from components.core.errors import ArtifactError
from components.core.live import read_pointer
from components.core.settings import load_settings
from components.core.step import latest
from components.core.store import Store

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "sqlite3.connect"}
NET_EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"}


def kill_at(moment: int) -> Callable[[int], None]:
    def strike(number: int) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


def fill_disk_at(moment: int, filler: Path, *, leave: int) -> Callable[[int], None]:
    """From the moment on no more than `leave` bytes can be written to the filler's disk."""

    def strike(number: int) -> None:
        if number == moment:
            fill(filler, leave=leave)

    return strike


def fill(filler: Path, *, leave: int) -> None:
    with filler.open("wb") as stream:
        size, at = 1 << 30, 0
        while size >= 512:
            try:
                os.posix_fallocate(stream.fileno(), at, size)
                at += size
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EFBIG):
                    raise
                size //= 2
        stream.truncate(max(at - leave, 0))


def is_for_writing(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) or any(letter in (mode or "") for letter in "wax+")


def without_hashes(place: str) -> str:
    """A file's place without what differs from day to day and from run to run."""
    return re.sub(r"[0-9a-f]{12,}|tmp[^/]+|\d{4}-\d{2}-\d{2}|\d{8}T\d+", "*", place)


class Watch:
    """Counts what happens to the home's files, and lists whom the process calls."""

    def __init__(self, home: Path, strike: Callable[[int], None]) -> None:
        self.home = f"{home}{os.sep}"
        self.strike = strike
        self.count = 0
        self.writes: dict[str, int] = {}
        """The moment at which each kind of file is written first."""
        self.calls: list[str] = []
        self._inside = threading.local()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in NET_EVENTS:
            self.calls.append(f"{event} {arguments[1:]}")
        if event not in FILE_EVENTS or getattr(self._inside, "busy", False):
            return
        if not any(str(one).startswith(self.home) for one in arguments[:2]):
            return
        self._inside.busy = True
        try:
            self.count += 1
            if event != "open" or is_for_writing(arguments):
                place = str(arguments[0]).removeprefix(self.home)
                self.writes.setdefault(f"{event} {without_hashes(place)}", self.count)
            self.strike(self.count)
        finally:
            self._inside.busy = False


def run(request: dict[str, Any]) -> dict[str, Any]:
    """One step in a child; its exit status (negative: the signal), and what it said."""
    scratch = Path(request["scratch"])
    paths = {name: scratch / f"{name}-{request.get('name', '')}" for name in ("out", "err", "seen")}
    for path in paths.values():
        path.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_the_child(request, paths)
    if request.get("in_background"):
        return {"pid": child}
    return ended(child, paths, kill_after=request.get("kill_after"))


def ended(child: int, paths: dict[str, Path], *, kill_after: float | None = None) -> dict[str, Any]:
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    seen = json.loads(paths["seen"].read_text()) if paths["seen"].exists() else {}
    said = {name: paths[name].read_text() for name in ("out", "err")}
    cpu_seconds = used.ru_utime + used.ru_stime
    return {"status": os.waitstatus_to_exitcode(status), "cpu_seconds": cpu_seconds, **said, **seen}


def _be_the_child(request: dict[str, Any], paths: dict[str, Path]) -> None:
    status = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(paths[name], os.O_WRONLY | os.O_CREAT), number)
        os.environ.update(request["environment"])
        if "hours_back" in request:
            set_clock_back(request["hours_back"])
        if "nobody_else" in request:
            wait_for(request["nobody_else"])
        watch = Watch(Path(os.environ["BASKETWEAVE_HOME"]), _strike(request))
        sys.addaudithook(watch)
        status = command(request["step"], request.get("options", []))
        paths["seen"].write_text(json.dumps({"moments": watch.count, "writes": watch.writes, "calls": watch.calls}))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _strike(request: dict[str, Any]) -> Callable[[int], None]:
    if "kill_at" in request:
        return kill_at(request["kill_at"])
    if "full_at" in request:
        return fill_disk_at(request["full_at"], Path(request["filler"]), leave=request["leave"])
    return lambda number: None


def command(step: str, options: list[str]) -> int:
    from components.cli import main

    sys.argv = ["basketweave", "step", step, *options]
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def wait_for(gate: str) -> None:
    """Until the file is there: two runs that wait for it begin together."""
    while not Path(gate).exists():
        time.sleep(0.001)


def set_clock_back(hours: float) -> None:
    """Every reading of the project's clock is an hour before the one before it, `hours` ago to begin with."""
    readings = iter(range(1_000_000))

    def wall_clock() -> datetime:
        return datetime.now(UTC) - timedelta(hours=hours + next(readings))

    real_time = time.time
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("components.", "serving.")) and hasattr(module, "wall_clock"):
            module.wall_clock = wall_clock  # type: ignore[attr-defined]
    time.time = lambda: real_time() - 3600 * (hours + next(readings))


# Tables whose files are found by their hash or made again: nothing is lost with them.
SHORTCUTS = ("feature_moments", "session_pairs", "similar_texts")


def look(request: dict[str, Any]) -> dict[str, Any]:
    """What a reader finds: the latest content of each kind, and all that is half written, by name."""
    settings = load_settings(home=Path(request["home"]))
    store = Store(settings.artifact_root)
    root = Path(settings.artifact_root)
    content: dict[str, str] = {}
    problems: list[str] = []
    for kind in {load_step(name).kind for name in PIPELINE}:
        for folder in sorted((root / kind).glob("*/")):
            if not (folder / MANIFEST).exists():
                problems.append(f"{kind}: a folder without its commit mark")
                continue
            _verify(lambda folder=folder: Artifact.open(store, str(folder)).verify(), problems)
        if store.exists(f"{kind}/latest.json"):
            ref = latest(store, kind)
            _verify(lambda ref=ref: Artifact.open(store, ref.uri, sha256=ref.sha256).verify(), problems)
            content[kind] = ref.sha256
    for state in sorted((root / "tables").glob("*/state.json")):
        if state.parent.name not in SHORTCUTS:
            table = DayTable(store, state.parent.name)
            _verify(lambda table=table: [store.fetch(p.path, sha256=p.sha256) for p in table.days().values()], problems)
    pointer = read_pointer(store)
    if pointer is not None:
        content["pointer"] = pointer.bundle.sha256
    content |= _feature_store(settings.project_home / "feast" / "online.db") | _registry(settings.home / "mlflow.db")
    left = [path.name for path in (root / ".staging").glob("*")] if root.exists() else []
    parts = [path.name for path in root.rglob("*.part")] if root.exists() else []
    return {"content": content, "problems": problems, "staging": left, "parts": parts}


def _verify(check: Callable[[], Any], problems: list[str]) -> None:
    try:
        check()
    except ArtifactError as error:
        problems.append(str(error))


def _feature_store(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = sorted(
            repr(row)
            for table in tables
            if table.startswith("basketweave_")
            for row in connection.execute(f'SELECT * FROM "{table}"')
        )
    return {"online rows": f"{len(rows)} {hash_of(rows)}"} if rows else {}


def hash_of(rows: list[str]) -> str:
    from components.core.hashing import json_sha256

    return json_sha256(rows)


def _registry(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as connection:
        try:
            versions = connection.execute("SELECT version, source FROM model_versions ORDER BY version").fetchall()
            aliases = connection.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
        except sqlite3.OperationalError:
            return {}
    return {"registry": repr((versions, sorted(aliases)))} if versions else {}


def keep(request: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(request["to"], ignore_errors=True)
    if Path(request["home"]).exists():
        shutil.copytree(request["home"], request["to"], symlinks=True)
    return {}


def restore(request: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(request["home"], ignore_errors=True)
    Path(request.get("filler", "/nonexistent")).unlink(missing_ok=True)
    if Path(request["to"]).exists():
        shutil.copytree(request["to"], request["home"], symlinks=True)
    if "database" in request:
        shutil.copyfile(request["database"], Path(request["home"]) / "mlflow.db")
    return {}


def copy(request: dict[str, Any]) -> dict[str, Any]:
    shutil.copyfile(request["path"], request["to"])
    return {}


def files(request: dict[str, Any]) -> dict[str, Any]:
    """Every file of the latest artifact of a kind: its own, its manifest, and two of its days."""
    store = Store(load_settings(home=Path(request["home"])).artifact_root)
    manifest = Artifact.open(store, latest(store, request["kind"]).uri).manifest
    own = [f"{manifest.uri}/{name}" for name in (MANIFEST, *(entry.path for entry in manifest.files))]
    days = [store.path(part.path) for part in (*manifest.partitions[:1], *manifest.partitions[-1:])]
    return {"files": own + days, "days": [part.day.isoformat() for part in manifest.partitions]}


def flip(request: dict[str, Any]) -> dict[str, Any]:
    """Spoil a file: flip a bit `where` (share of its length) or cut it there. Returns its bytes, which `undo` takes."""
    path = Path(request["path"])
    before = path.read_bytes()
    if "undo" in request:
        _replace(path, bytes.fromhex(request["undo"]))
        return {}
    at = int(request["where"] * len(before))
    flipped = before[at] ^ (1 << request["bit"])
    _replace(path, before[:at] if request["cut"] else before[:at] + bytes([flipped]) + before[at + 1 :])
    return {"bytes": before.hex()}


def notices(request: dict[str, Any]) -> dict[str, Any]:
    """What a reader finds while the file is spoilt."""
    before = flip(request)["bytes"]
    problems = look(request)["problems"]
    flip({"path": request["path"], "undo": before})
    return {"problems": problems}


def _replace(path: Path, data: bytes) -> None:
    path.unlink()  # a kept copy may be a link to it
    path.write_bytes(data)


def together(request: dict[str, Any]) -> dict[str, Any]:
    """Several runs at once; each one's end."""
    scratch = Path(request["scratch"])
    gate = scratch / "gate"
    gate.unlink(missing_ok=True)
    children = []
    for number, each in enumerate(request["runs"]):
        name = str(number)
        started = run({**each, "scratch": str(scratch), "name": name, "in_background": True, "nobody_else": str(gate)})
        children.append((started["pid"], {kind: scratch / f"{kind}-{name}" for kind in ("out", "err", "seen")}))
    time.sleep(0.3)
    gate.touch()
    return {"ends": [ended(pid, paths) for pid, paths in children]}


def main() -> None:
    from components.evaluate.gates import GATES, judge

    # In a world of sixty people no honest model leads surely, and this is about all around it.
    assert judge.__kwdefaults__ is not None
    judge.__kwdefaults__["gates"] = tuple(gate for gate in GATES if gate.baseline is None)
    for name in PIPELINE:
        load_step(name)
    import feature_repo.store  # noqa: F401  # what steps import late, once for all children

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    actions = {action.__name__: action for action in (run, look, keep, restore, copy, files, flip, notices, together)}
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(actions[request["do"]](request)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
