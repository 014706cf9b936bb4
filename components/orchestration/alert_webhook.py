"""From an alert to a run: Alertmanager's webhook comes in, a run of `recommender` goes out and carries why.

Airflow's REST API refuses Alertmanager's payload (it wants its own fields and no others), so a small receiver on
loopback translates. Drift asks for retrains by itself through an asset event; this is for whoever decides by alert
rules, on drift or on anything else. Alerts that come while a run is under way, or within the cool-down, start nothing.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from components.core.errors import BasketweaveError
from components.core.settings import Settings, child_environment
from components.orchestration.environment import LOOPBACK

logger = logging.getLogger(__name__)

DAG_ID = "recommender"
MOST_BYTES = 1_000_000
LONGEST_WHY = 500
ANSWER_SECONDS = 30.0
Start = Callable[[str], str]
"""Starts a run for a reason; returns its name. Raises OSError or BasketweaveError where it cannot."""


def why_of(payload: Mapping[str, Any], *, alerts: Collection[str]) -> str | None:
    """One sentence about the payload's firing alerts that are among `alerts`; None: there is none.

    Payload: Alertmanager's webhook, version 4.
    """
    firing = [
        one
        for one in payload.get("alerts", [])
        if one.get("status") == "firing" and one.get("labels", {}).get("alertname") in alerts
    ]
    said = dict.fromkeys(
        f"{one['labels']['alertname']}: {one.get('annotations', {}).get('summary', 'no summary')}" for one in firing
    )
    return "; ".join(said)[:LONGEST_WHY] if said else None


def dag_run_body(why: str) -> dict[str, Any]:
    """Body of Airflow's `POST /api/v2/dags/{dag_id}/dagRuns`."""
    return {"logical_date": None, "conf": {"why": why}, "note": why}


def by_airflow(url: str, *, token: str | None = None) -> Start:
    """Start runs through the REST API of the Airflow at `url`."""

    address = f"{url.rstrip('/')}/api/v2/dags/{DAG_ID}/dagRuns"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    # Airflow's address may be loopback, which no proxy reaches.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(why: str) -> str:
        body = json.dumps(dag_run_body(why)).encode()
        request = urllib.request.Request(address, data=body, headers=headers)  # noqa: S310  # the operator's own address
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return str(json.load(answer)["dag_run_id"])

    return start


def by_command(settings: Settings) -> Start:
    """Start runs as `basketweave run --why …` in processes of this machine, where no Airflow runs."""

    def start(why: str) -> str:
        command = [sys.executable, "-m", "components.cli", "run", "--why", why]
        process = subprocess.Popen(  # noqa: S603  # our own module, no shell
            command, env=child_environment(settings), stdin=subprocess.DEVNULL
        )
        threading.Thread(target=process.wait, daemon=True).start()  # or it would stay as a zombie
        return f"process {process.pid}"

    return start


class Receiver:
    """Takes payloads and starts at most one run in each cool-down. Safe to share between threads."""

    def __init__(self, start: Start, *, alerts: Collection[str], cooldown_seconds: float) -> None:
        self._start = start
        self._alerts = frozenset(alerts)
        self._cooldown_seconds = cooldown_seconds
        self._lock = threading.Lock()
        self._last: float | None = None

    def take(self, payload: Mapping[str, Any]) -> dict[str, str]:
        """What became of a payload: {"started": run, "why": …} or {"ignored": why not}."""
        why = why_of(payload, alerts=self._alerts)
        if why is None:
            return {"ignored": f"no firing alert among {', '.join(sorted(self._alerts))}"}
        with self._lock:
            now = time.monotonic()
            if self._last is not None and now - self._last < self._cooldown_seconds:
                left = self._cooldown_seconds - (now - self._last)
                return {"ignored": f"a run was started already; the cool-down lasts {left:.0f} s more"}
            run = self._start(why)
            self._last = now
        logger.info("Started %s because %s", run, why)
        return {"started": run, "why": why}


def make_server(receiver: Receiver, *, port: int) -> ThreadingHTTPServer:
    """A server on loopback; port 0: a free one. `POST /alerts` takes payloads, `GET /livez` says that it runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self.path == "/livez" else 404, {"alive": "yes"} if self.path == "/livez" else {})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != "/alerts":
                return self._answer(404, {"detail": "Alerts go to /alerts."})
            if not length.isdigit() or int(length) > MOST_BYTES:
                return self._answer(413, {"detail": f"A payload has at most {MOST_BYTES} bytes."})
            try:
                payload = json.loads(self.rfile.read(int(length)))
                if not isinstance(payload, dict):
                    raise ValueError("it is no object")
            except ValueError as error:
                return self._answer(400, {"detail": f"The payload cannot be read: {error}."})
            try:
                return self._answer(200, receiver.take(payload))
            except (OSError, KeyError, ValueError, BasketweaveError) as error:
                # Alertmanager sends it again.
                logger.warning("A run was not started: %s", error)
                return self._answer(502, {"detail": f"The run was not started: {error}"})

        def _answer(self, status: int, content: Mapping[str, str]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            logger.debug(format, *args)

    return ThreadingHTTPServer((LOOPBACK, port), Handler)
