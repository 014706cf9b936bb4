"""How bundles are loaded beside the requests: in a thread of their own, and by one worker after the other."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.artifact import ArtifactRef

if TYPE_CHECKING:  # torch loads in a worker when it loads a bundle
    from serving.recommend import Recommender

TURN_SECONDS = 3.0


class Loading:
    """One load. Nothing stops it: what nobody wants any more is dropped when it is done."""

    def __init__(self, ref: ArtifactRef, load: Callable[[str, str], Recommender]) -> None:
        self.ref = ref
        self._done: Future[Recommender] = Future()

        def run() -> None:
            try:
                self._done.set_result(load(ref.uri, ref.sha256))
            except BaseException as error:  # noqa: BLE001  # whoever takes the result is told, whatever it is
                self._done.set_exception(error)

        # A daemon: a worker that ends does not wait for it.
        threading.Thread(target=run, name="loading", daemon=True).start()

    def is_done(self) -> bool:
        return self._done.done()

    def wait(self) -> None:
        """Until it is done, well or not."""
        self._done.exception()

    def result(self) -> Recommender:
        """Raises what the load raised."""
        return self._done.result()


@contextmanager
def turn(file: Path) -> Iterator[None]:
    """One after the other: the workers of a machine that load at one time leave no core to answer with. Nobody waits
    longer than TURN_SECONDS for the others, so that a rollback reaches every worker in time, however many there are."""
    with file.open("w") as lock:
        deadline = time.monotonic() + TURN_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        yield
