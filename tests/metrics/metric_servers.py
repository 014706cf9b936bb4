"""Real Prometheus programs on loopback and free ports, stopped by their own pid."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from needs import program
from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A server that answers; `folder` is its own and goes with it."""

    url: str
    port: int
    folder: Path

    def get(self, path: str) -> str:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def metrics(self) -> dict[str, float]:
        return values(self.get("/metrics"))


def values(text: str) -> dict[str, float]:
    """Prometheus' text format -> 'name{a=b,c=d}': value, labels sorted."""
    return {
        f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    *,
    port: int,
    folder: Path,
    ready: str = "/-/ready",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A process until the end of the block; up when `ready` answers."""
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(arguments, stdout=stream, stderr=subprocess.STDOUT, cwd=folder, env=environment)
    server = Server(url=f"http://127.0.0.1:{port}", port=port, folder=folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                server.get(ready)
                break
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def pushgateway() -> Iterator[Server]:
    binary, port = program("prometheus-pushgateway", package="prometheus-pushgateway"), free_port()
    folder = Path(tempfile.mkdtemp(prefix="pushgateway-"))
    with running([binary, f"--web.listen-address=127.0.0.1:{port}"], port=port, folder=folder) as server:
        yield server


@contextlib.contextmanager
def prometheus(config: dict[str, Any], *, rules: Sequence[Path] = ()) -> Iterator[Server]:
    """Prometheus that scrapes and evaluates every second; `config` is scrape_configs and alerting."""
    binary, port = program("prometheus", package="prometheus"), free_port()
    folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
    whole = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rule) for rule in rules],
        **config,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(whole))
    arguments = [binary, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    with running([*arguments, f"--web.listen-address=127.0.0.1:{port}"], port=port, folder=folder) as server:
        yield server


def scraped(job: str, *ports: int, honor_labels: bool = False, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """A scrape_config of loopback ports."""
    targets = [f"127.0.0.1:{port}" for port in ports]
    return {
        "job_name": job,
        "honor_labels": honor_labels,
        "static_configs": [{"targets": targets, "labels": labels or {}}],
    }


def query(server: Server, expr: str) -> list[dict[str, Any]]:
    """The instant vector of an expression: [{"metric": …, "value": [time, "text"]}]."""
    answer = json.loads(server.get("/api/v1/query?" + urllib.parse.urlencode({"query": expr})))
    assert answer["status"] == "success", answer
    data = answer["data"]
    if data["resultType"] == "scalar":
        return [{"metric": {}, "value": data["result"]}]
    return list(data["result"])


def until(condition: Callable[[], object], *, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: it did not happen within {seconds:.0f} s"
        time.sleep(0.25)
