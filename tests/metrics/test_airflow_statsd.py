"""Airflow's own metrics: sent by StatsD to where the settings say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.settings import child_environment, load_settings
from components.orchestration.environment import airflow_environment

ORCHESTRATION_TESTS = Path(__file__).parents[1] / "orchestration"

# A process of its own: Airflow reads where to send its metrics once.
ONE_RUN = """
import sys
from pathlib import Path
from components.core.settings import load_settings
from components.orchestration.environment import airflow_environment, dags_folder, enter
settings = load_settings()
enter(airflow_environment(settings, home=settings.home / "airflow"))
sys.path.insert(0, sys.argv[1])
from tiny_steps import TinySteps
import components.orchestration.component
components.orchestration.component.load_step = TinySteps()
from airflow.utils.db import initdb
initdb()
from airflow.dag_processing.dagbag import DagBag
run = DagBag(str(dags_folder())).dags["recommender"].test(logical_date=None)
sys.exit(0 if run.state == "success" else 1)
"""


def test_without_a_host_nothing_is_said_of_statsd(tmp_path: Path) -> None:
    environment = airflow_environment(load_settings(home=tmp_path), home=tmp_path)
    assert {name for name in environment if "STATSD" in name} <= set(os.environ)


@pytest.mark.slow
def test_a_run_reaches_the_socket_that_the_settings_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        listener.settimeout(1)
        statsd = {"statsd_host": "127.0.0.1", "statsd_port": listener.getsockname()[1]}
        settings = load_settings(home=tmp_path, metrics=statsd, orchestration={"retries": 0})
        done = subprocess.run(
            [sys.executable, "-c", ONE_RUN, str(ORCHESTRATION_TESTS)],
            env=child_environment(settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        received = []
        try:
            while True:
                received.append(listener.recv(65_535).decode())
        except TimeoutError:
            pass
    names = {re.split("[:|]", line)[0] for packet in received for line in packet.splitlines()}
    assert "airflow.ti.finish.recommender.train.success" in names
    assert "airflow.dag.recommender.train.duration" in names
