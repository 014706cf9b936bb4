"""From planted drift to a retrain: monitor, gauge, rule, Alertmanager, webhook, run; every program the real one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from metric_servers import Server, free_port, prometheus, pushgateway, query, running, scraped, until
from needs import program
from watched_rules import chart_rules
from watched_shop import LENIENT_RUN, PROJECT, SMALL, command, watch_drift

from components.core.journal import NOT_PROMOTED, last_runs
from components.core.settings import load_settings
from components.core.store import Store

pytestmark = pytest.mark.slow

DRIFT_DAY = 52
SIZE = ["--users", "300", "--items", "200", "--days", "60", "--sessions-per-user-day", "0.3", "--seed", "7"]


@contextlib.contextmanager
def alertmanager(webhook: str) -> Iterator[Server]:
    """Alertmanager that passes every alert on at once."""
    binary = program("prometheus-alertmanager", package="prometheus-alertmanager")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="alertmanager-"))
    receiver = {"name": "retrain", "webhook_configs": [{"url": webhook, "send_resolved": False}]}
    route = {"receiver": "retrain", "group_wait": "1s", "group_interval": "1s", "group_by": ["alertname"]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}))
    arguments = [binary, "--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="]
    with running([*arguments, f"--web.listen-address=127.0.0.1:{port}"], port=port, folder=folder) as server:
        yield server


@contextlib.contextmanager
def alert_webhook(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """`basketweave alert-webhook` on a free port; its address for Alertmanager."""
    port = free_port()
    arguments = [sys.executable, str(LENIENT_RUN), "alert-webhook", "--port", str(port)]
    folder.mkdir()
    with running(arguments, port=port, folder=folder, ready="/livez", environment=environment):
        yield f"http://127.0.0.1:{port}/alerts"


def test_planted_drift_ends_in_a_run_that_carries_why(tmp_path: Path) -> None:
    world = tmp_path / "world"
    environment = shop_environment(tmp_path)
    # Prices nearly double a week before the log's end.
    planted = ["--drift", f"price@{DRIFT_DAY}=0.8"]
    made = command(environment, "simulate", "--out", str(world), *SIZE, *planted)
    assert made.returncode == 0, made.stdout + made.stderr
    rules = [group for group in chart_rules() if group["name"].endswith("-pipeline")]
    for rule in rules[0]["rules"]:
        rule["for"] = "1s"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}))
    with pushgateway() as gateway:
        environment["BASKETWEAVE_METRICS__PUSHGATEWAY"] = gateway.url
        done = command(environment, "run")
        assert done.returncode == 0, done.stdout + done.stderr
        try:
            monitored = watch_drift(environment)
            assert monitored.returncode == 0, monitored.stdout + monitored.stderr
            with (
                alert_webhook(environment, tmp_path / "webhook") as webhook,
                alertmanager(webhook) as alerts,
                prometheus(
                    {
                        "scrape_configs": [scraped("pushgateway", gateway.port, honor_labels=True)],
                        "alerting": {
                            "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerts.port}"]}]}]
                        },
                    },
                    rules=[tmp_path / "rules.yaml"],
                ) as server,
            ):
                until(lambda: query(server, "basketweave_drift_alarm == 1"), what="the gauge says so")
                firing = 'ALERTS{alertname="BasketweaveDrift",alertstate="firing"}'
                until(lambda: query(server, firing), what="the rule fires")
                measures = {series["metric"]["measure"] for series in query(server, firing)}
                assert "price_level" in measures
                until(lambda: json.loads(alerts.get("/api/v2/alerts")), what="Alertmanager has it")
                store = Store(load_settings(home=tmp_path / "home", project=PROJECT).artifact_root)
                until(lambda: asked_for(store), what="a run was asked for", seconds=240)
                until(lambda: asked_for(store) & {"deploy", NOT_PROMOTED}, what="the run has ended", seconds=240)
        finally:
            command(environment, "stop")
    assert len(last_runs(store, count=9)) == 3  # the first one, the look for drift, and the retrain
    reasons = {entry.why for entry in last_runs(store, count=1)[0]}
    [why] = reasons
    assert why is not None
    assert why.startswith("BasketweaveDrift: ")
    assert any(measure in why for measure in measures)


def asked_for(store: Store) -> set[str]:
    """Tasks so far of the newest run that carries why."""
    return {entry.task for entries in last_runs(store, count=1) for entry in entries if entry.why}


def shop_environment(folder: Path) -> dict[str, str]:
    environment = {**os.environ, "BASKETWEAVE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {f"BASKETWEAVE_{name}": value for name, value in SMALL.items()}
    # Two weeks after the cutoff are too few to learn limits from: a bound by hand holds until then.
    environment["BASKETWEAVE_MONITOR__BOUNDS"] = '{"price_level": 0.3}'
    environment["BASKETWEAVE_SOURCE__PROFILE"] = "contract"
    environment["BASKETWEAVE_SOURCE__EVENTS"] = f"{folder}/world/events/*.parquet"
    environment["BASKETWEAVE_SOURCE__CATALOG"] = f"{folder}/world/catalog.parquet"
    return environment
