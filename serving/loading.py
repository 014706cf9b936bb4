"""A bundle that is loaded in a thread of its own, so that whoever wants it need not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from components.core.artifact import ArtifactRef

if TYPE_CHECKING:  # torch loads in a worker when it loads a bundle
    from serving.recommend import Recommender


class Loading:
    """One load. Nothing stops it: what nobody wants any more is dropped when it is done."""

    def __init__(self, ref: ArtifactRef, load: Callable[[str, str | None], Recommender]) -> None:
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
