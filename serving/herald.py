"""A worker says in the artifact store that it lives, and what it answers with (components/core/presence.py)."""

from __future__ import annotations

import logging
import os
import socket
import time

from components.core.clock import wall_clock
from components.core.live import process_start
from components.core.presence import HEARTBEAT_SECONDS, Presence, delete_presence, write_presence
from components.core.store import Store

logger = logging.getLogger(__name__)


class Herald:
    """Speaks for this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._started_at = process_start(os.getpid())
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{self._started_at:.0f}"
        self._told: tuple[str, str | None] | None = None
        self._told_at = 0.0

    def tell(self, *, bundle: str, rollout: str | None) -> None:
        """At once when it changes, and else now and then."""
        news = (bundle, rollout)
        if news == self._told and time.monotonic() - self._told_at < HEARTBEAT_SECONDS:
            return
        presence = Presence(
            worker=self.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            bundle=bundle,
            rollout=rollout,
            seen_at=wall_clock(),
        )
        try:
            write_presence(self._store, presence)
        except OSError as error:
            logger.warning("Whether this worker lives is not written to the store: %s", error)
        else:
            self._told, self._told_at = news, time.monotonic()

    def leave(self) -> None:
        if self._told is None:
            return
        try:
            delete_presence(self._store, self.worker)
        except OSError as error:
            logger.warning("The store still lists this worker: %s", error)
