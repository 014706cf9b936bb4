"""A worker's parts that remember what users do and what they were shown, put together from the settings."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

from components.core.settings import Settings
from components.core.store import Store
from serving.events import FOLDER, EventIntake, Observer
from serving.fresh import FreshBehaviour, open_fresh_store
from serving.line_log import LineLog
from serving.pseudonyms import Pseudonyms
from serving.served_log import ServedLog


@dataclass(frozen=True)
class Behaviour:
    """Nothing is opened before its first use, so a store that is away costs its own answers alone."""

    pseudonyms: Pseudonyms
    fresh: FreshBehaviour
    feedback: LineLog
    served: ServedLog
    intake: EventIntake

    @classmethod
    def of_settings(cls, settings: Settings, *, observer: Observer) -> Behaviour:
        # No file is ever written by two processes, nor by one and a later one with its number.
        worker = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
        store = Store(settings.artifact_root)
        pseudonyms = Pseudonyms.of_settings(settings)
        fresh = FreshBehaviour(open_fresh_store(settings), poll_seconds=settings.serve.fresh_poll_seconds)
        feedback = LineLog(store, FOLDER, worker=worker)
        served = ServedLog(
            store, worker=worker, share=settings.serve.served_log_share, max_mb=settings.serve.served_log_max_mb
        )
        intake = EventIntake(
            settings, fresh=fresh, feedback=feedback, served=served, pseudonyms=pseudonyms, observer=observer
        )
        return cls(pseudonyms, fresh, feedback, served, intake)

    def start(self) -> None:
        self.fresh.start()
        self.served.start()

    def stop(self) -> None:
        self.fresh.stop()
        self.served.stop()
        self.feedback.close()
