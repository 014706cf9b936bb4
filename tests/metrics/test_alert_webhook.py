"""From an alert to a run: what the receiver takes, what it sends to Airflow, and how often."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from components.orchestration.alert_webhook import Receiver, by_airflow, dag_run_body, make_server, why_of

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def alert(
    name: str = "BasketweaveDrift", *, status: str = "firing", summary: str = "price_psi has moved"
) -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": name}, "annotations": {"summary": summary}}


def payload(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "alerts": list(alerts)}


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def post(url: str, body: bytes) -> tuple[int, dict[str, str]]:
    try:
        with OPENER.open(urllib.request.Request(url, data=body), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_reason_names_each_firing_alert_that_is_asked_for_once() -> None:
    drift = payload(alert(), alert(), alert(summary="hours"), alert("BasketweaveDown"), alert(status="resolved"))
    assert why_of(drift, alerts=["BasketweaveDrift"]) == (
        "BasketweaveDrift: price_psi has moved; BasketweaveDrift: hours"
    )
    assert why_of(payload(alert(status="resolved")), alerts=["BasketweaveDrift"]) is None
    assert why_of(payload(alert("BasketweaveDown")), alerts=["BasketweaveDrift"]) is None
    assert why_of({}, alerts=["BasketweaveDrift"]) is None


def test_airflows_own_model_takes_the_body_and_refuses_alertmanagers() -> None:
    from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody
    from pydantic import ValidationError

    body = TriggerDAGRunPostBody.model_validate(dag_run_body("BasketweaveDrift: hours"))
    assert (body.conf, body.note) == ({"why": "BasketweaveDrift: hours"}, "BasketweaveDrift: hours")
    with pytest.raises(ValidationError):
        TriggerDAGRunPostBody.model_validate(payload(alert()))


def test_many_alerts_start_one_run_in_a_cool_down() -> None:
    started: list[str] = []

    def start(why: str) -> str:
        started.append(why)
        return "run-1"

    receiver = Receiver(start, alerts=["BasketweaveDrift"], cooldown_seconds=3600)
    assert receiver.take(payload(alert("BasketweaveDown"))) == {"ignored": "no firing alert among BasketweaveDrift"}
    first = receiver.take(payload(alert()))
    assert first == {"started": "run-1", "why": "BasketweaveDrift: price_psi has moved"}
    assert receiver.take(payload(alert()))["ignored"].startswith("a run was started already")
    assert len(started) == 1


def test_a_run_that_could_not_be_started_is_asked_for_again() -> None:
    calls = []

    def start(why: str) -> str:
        calls.append(why)
        if len(calls) == 1:
            raise OSError("Airflow is away")
        return "run-2"

    receiver = Receiver(start, alerts=["BasketweaveDrift"], cooldown_seconds=3600)
    with serving(make_server(receiver, port=0)) as url:
        body = json.dumps(payload(alert())).encode()
        status, answer = post(f"{url}/alerts", body)
        assert (status, answer["detail"]) == (502, "The run was not started: Airflow is away")
        assert post(f"{url}/alerts", body) == (
            200,
            {"started": "run-2", "why": "BasketweaveDrift: price_psi has moved"},
        )


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/alerts", b"no JSON", 400), ("/alerts", b"[]", 400), ("/else", b"{}", 404)]
)
def test_what_is_no_payload_is_refused(path: str, body: bytes, status: int) -> None:
    receiver = Receiver(lambda why: "never", alerts=["BasketweaveDrift"], cooldown_seconds=0)
    with serving(make_server(receiver, port=0)) as url:
        assert post(f"{url}{path}", body)[0] == status


def test_airflow_is_asked_for_a_run_with_its_reason_and_the_token() -> None:
    asked: list[tuple[str, str | None, dict[str, Any]]] = []

    class Airflow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"dag_run_id": "manual__1"}')

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Airflow)) as url:
        assert by_airflow(f"{url}/", token="t")("BasketweaveDrift: hours") == "manual__1"
    assert asked == [("/api/v2/dags/recommender/dagRuns", "Bearer t", dag_run_body("BasketweaveDrift: hours"))]
