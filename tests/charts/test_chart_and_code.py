"""The chart and the code say the same: settings, metrics, runbooks, paths."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import program

from charts.settings_schema import SCHEMA, settings_schema
from components.core.errors import SettingsError
from components.core.settings import load_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "basketweave"
Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]
OVERRIDES = (
    'settings.train={"seed": 20261124, "temperature": 0.15, "learning_rate": 1e-7}',
    'settings.graph={"relations": ["co_purchase", "same_brand"]}',
    'settings.tracking={"experiment": "a \\"quoted\\" name: yes"}',
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BASKETWEAVE_")]:
        monkeypatch.delenv(name)


def test_the_schemas_settings_are_the_codes_settings() -> None:
    written = json.loads(SCHEMA.read_text())["properties"]["settings"]
    assert written == settings_schema(), "stale: run python -m charts.settings_schema"
    assert written["additionalProperties"] is False
    assert "api_keys" not in written["properties"]["serve"]["properties"]


def test_the_rendered_toml_and_environment_load_as_equal_settings(
    render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifests = render("small", *OVERRIDES)
    config = tmp_path / "rendered.toml"
    config.write_text(manifests["ConfigMap", "shop-basketweave"]["data"]["basketweave.toml"])
    monkeypatch.setenv("BASKETWEAVE_CONFIG", str(config))
    from_file = load_settings()
    monkeypatch.delenv("BASKETWEAVE_CONFIG")
    for name, value in manifests["ConfigMap", "shop-basketweave-environment"]["data"].items():
        monkeypatch.setenv(name, value)
    assert from_file == load_settings()
    assert from_file.train.seed == 20_261_124
    assert from_file.train.learning_rate == 1e-7
    assert from_file.graph.relations == ("co_purchase", "same_brand")
    assert from_file.tracking.experiment == 'a "quoted" name: yes'
    assert from_file.artifact_root == "s3://shop-recommendations/basketweave/shop"
    assert from_file.deploy.start_service is False


def test_the_secrets_entry_is_a_list_of_keys(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    [container] = render()["Deployment", "shop-basketweave"]["spec"]["template"]["spec"]["containers"]
    [variable] = [entry["name"] for entry in container["env"] if "valueFrom" in entry]
    monkeypatch.setenv(variable, '["one", "two"]')
    assert [key.get_secret_value() for key in load_settings().serve.api_keys] == ["one", "two"]


def test_variables_that_kubernetes_adds_for_a_service_are_no_misspelt_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"BASKETWEAVE_{name}", "10.0.0.1")
        monkeypatch.setenv(f"BASKETWEAVE_CANARY_{name}", "10.0.0.1")
    load_settings()
    monkeypatch.setenv("BASKETWEAVE_DEPLOI__PORT", "3000")
    with pytest.raises(SettingsError, match="BASKETWEAVE_DEPLOY__PORT"):
        load_settings()


def rules(render: Render) -> list[dict[str, Any]]:
    [group] = render("large")["PrometheusRule", "recommendations"]["spec"]["groups"]
    return group["rules"]


def test_alerts_name_only_metrics_that_the_service_exports(render: Render) -> None:
    source = (ROOT / "serving" / "metrics.py").read_text()
    exported = set(re.findall(r"\"(basketweave_\w+)\"", source))
    assert len(exported) >= 5
    for rule in rules(render):
        for name in re.findall(r"basketweave_\w+", rule["expr"]):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in exported, rule["alert"]


def test_every_alert_leads_to_a_runbook_of_the_docs(render: Render) -> None:
    headings = set(re.findall(r"^### (\w+)$", (ROOT / "docs" / "kubernetes.md").read_text(), flags=re.MULTILINE))
    alerts = rules(render)
    assert {rule["alert"] for rule in alerts} == headings
    for rule in alerts:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")
        assert rule["for"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_promtool_accepts_the_rules(render: Render, tmp_path: Path) -> None:
    tool = program("promtool", package="prometheus")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "service", "rules": rules(render)}]}))
    done = subprocess.run([tool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 rules found" in done.stdout


def test_alerts_fire_when_they_should_and_are_quiet_when_all_is_well(render: Render, tmp_path: Path) -> None:
    tool = program("promtool", package="prometheus")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "service", "rules": rules(render)}]}))
    labels = 'job="recommendations",namespace="shop"'

    def series(name: str, values: str, extra: str = "") -> dict[str, str]:
        return {"series": f"{name}{{{labels}{extra}}}", "values": values}

    well = [
        series("up", "1x60"),
        series("basketweave_bundle_info", "1x60", ',bundle="aa",cutoff="2024-01-01"'),
        series("basketweave_requests_total", "0+600x60", ',endpoint="/recommend",status="200"'),
        series("basketweave_recommendations_total", "0+600x60", ',source="online_store",bundle="aa"'),
        series("basketweave_fallbacks_total", "0+6x60", ',reason="unknown_user"'),
        series("basketweave_bundle_loads_total", "1x60", ',outcome="loaded"'),
        series("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="0.1"'),
        series("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="+Inf"'),
    ]
    broken = [
        series("up", "1x60"),
        series("basketweave_bundle_info", "0x60", ',bundle="aa",cutoff="2024-01-01"'),
        series("basketweave_requests_total", "0+600x60", ',endpoint="/recommend",status="200"'),
        series("basketweave_requests_total", "0+60x60", ',endpoint="/recommend",status="503"'),
        series("basketweave_recommendations_total", "0+600x60", ',source="popularity",bundle="aa"'),
        series("basketweave_fallbacks_total", "0+300x60", ',reason="online_store"'),
        series("basketweave_bundle_loads_total", "0+1x60", ',outcome="refused"'),
        series("basketweave_request_seconds_bucket", "0+300x60", ',endpoint="/recommend",le="0.1"'),
        series("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="1"'),
        series("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="+Inf"'),
    ]
    gone = [series("up", "0x60")]
    firing = {
        "well": (well, set()),
        "broken": (broken, {rule["alert"] for rule in rules(render)} - {"BasketweaveDown"}),
        "gone": (gone, {"BasketweaveDown"}),
    }
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": given,
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": "40m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)],
                }
            ],
        }
        for name, (given, expected) in firing.items()
    ]
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([tool, "test", "rules", str(suite)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_airflow_example_mounts_what_the_service_mounts(render: Render) -> None:
    airflow = yaml.safe_load((CHART / "examples" / "airflow-values.yaml").read_text())
    manifests = render("laptop", release="basketweave")
    variables = manifests["ConfigMap", "basketweave-environment"]["data"]
    mounts = {mount["subPath"]: mount["mountPath"] for mount in airflow["volumeMounts"]}
    assert mounts == {"home": variables["BASKETWEAVE_HOME"], "artifacts": variables["BASKETWEAVE_STORAGE_ROOT"]}
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in airflow["volumes"]}
    volumes = manifests["Deployment", "basketweave"]["spec"]["template"]["spec"]["volumes"]
    assert claims == {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}
    [source] = yaml.safe_load(airflow["extraEnvFrom"])
    assert ("ConfigMap", source["configMapRef"]["name"]) in manifests
