"""The alerts: about metrics that exist, firing when they should, each with a runbook."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported_metrics import OF_PROMETHEUS, exported, named
from needs import program

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "operations" / "runbooks.md"
Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]
Series = dict[str, str]

SERVICE = 'job="recommendations",namespace="shop"'
PIPELINE = 'project="shop",job="basketweave-pipeline"'


def groups(render: Render) -> list[dict[str, Any]]:
    rule = render("large", "metrics.prometheusRule.maxRunCost=5")["PrometheusRule", "recommendations"]
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def rules(render: Render) -> list[dict[str, Any]]:
    return [rule for group in groups(render) for rule in group["rules"]]


def service(name: str, values: str, extra: str = "") -> Series:
    return {"series": f"{name}{{{SERVICE}{extra}}}", "values": values}


def pipeline(name: str, values: str, extra: str = "") -> Series:
    return {"series": f"{name}{{{PIPELINE}{extra}}}", "values": values}


# Forty minutes of a minute each, in which nothing is wrong.
WELL = {
    "up": service("up", "1x60"),
    "bundle": service("basketweave_bundle_info", "1x60", ',bundle="aa",cutoff="2024-01-01"'),
    "answers": service("basketweave_requests_total", "0+600x60", ',endpoint="/recommend",status="200"'),
    "lists": service("basketweave_recommendations_total", "0+600x60", ',source="online_store",bundle="aa"'),
    "fallbacks": service("basketweave_fallbacks_total", "0+6x60", ',reason="unknown_user"'),
    "loads": service("basketweave_bundle_loads_total", "1x60", ',outcome="loaded"'),
    "fast": service("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="0.1"'),
    "all": service("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="+Inf"'),
    "young": service("basketweave_feature_age_seconds_bucket", "0+600x60", ',le="86400"'),
    "ages": service("basketweave_feature_age_seconds_bucket", "0+600x60", ',le="+Inf"'),
    "step": pipeline("basketweave_step_failed", "0x60", ',step="train"'),
    "evaluated": pipeline("basketweave_step_finished_timestamp_seconds", "0+60x60", ',step="evaluate"'),
    "promoted": pipeline("basketweave_evaluation_verdict", "1x60", ',verdict="promote"'),
    "not held": pipeline("basketweave_evaluation_verdict", "0x60", ',verdict="hold"'),
    "kept": pipeline("basketweave_source_rows", "980x60", ',step="validate",outcome="kept"'),
    "put aside": pipeline("basketweave_source_rows", "20x60", ',step="validate",outcome="quarantined"'),
    "price": pipeline("basketweave_run_cost", "4.5x60", ',currency="EUR"'),
    "even": pipeline("basketweave_drift_alarm", "0x60", ',measure="price_psi"'),
    "through": pipeline("basketweave_rollout_outcome", "1x60", ',outcome="promoted"'),
    "no end": pipeline("basketweave_rollout_outcome", "0x60", ',outcome="aborted"'),
}
# What goes wrong -> the series that say so, in place of those of the same name above.
BROKEN: dict[str, dict[str, Series]] = {
    "BasketweaveDown": {"up": service("up", "0x60")},
    "BasketweaveNoBundle": {
        "bundle": service("basketweave_bundle_info", "0x60", ',bundle="aa",cutoff="2024-01-01"'),
    },
    "BasketweaveErrors": {
        "errors": service("basketweave_requests_total", "0+60x60", ',endpoint="/recommend",status="503"'),
    },
    "BasketweaveSlow": {
        "fast": service("basketweave_request_seconds_bucket", "0+300x60", ',endpoint="/recommend",le="0.1"'),
        "slow": service("basketweave_request_seconds_bucket", "0+600x60", ',endpoint="/recommend",le="1"'),
    },
    "BasketweaveBundleRefused": {
        "refused": service("basketweave_bundle_loads_total", "0+1x60", ',outcome="refused"'),
    },
    "BasketweaveDegraded": {
        "fallbacks": service("basketweave_fallbacks_total", "0+300x60", ',reason="online_store"'),
    },
    "BasketweaveStaleFeatures": {
        "young": service("basketweave_feature_age_seconds_bucket", "0+300x60", ',le="259200"'),
        "old": service("basketweave_feature_age_seconds_bucket", "0+600x60", ',le="604800"'),
    },
    "BasketweavePipelineFailed": {"step": pipeline("basketweave_step_failed", "1x60", ',step="train"')},
    "BasketweavePipelineLate": {
        # Two days before the test's clock begins.
        "evaluated": pipeline("basketweave_step_finished_timestamp_seconds", "-172800x60", ',step="evaluate"'),
    },
    "BasketweaveNotPromoted": {
        "promoted": pipeline("basketweave_evaluation_verdict", "0x60", ',verdict="promote"'),
        "not held": pipeline("basketweave_evaluation_verdict", "1x60", ',verdict="hold"'),
    },
    "BasketweaveQuarantine": {
        "put aside": pipeline("basketweave_source_rows", "80x60", ',step="validate",outcome="quarantined"'),
    },
    "BasketweaveDrift": {"even": pipeline("basketweave_drift_alarm", "1x60", ',measure="price_psi"')},
    "BasketweaveRolloutAborted": {
        "through": pipeline("basketweave_rollout_outcome", "0x60", ',outcome="promoted"'),
        "no end": pipeline("basketweave_rollout_outcome", "1x60", ',outcome="aborted"'),
    },
    "BasketweaveCost": {"price": pipeline("basketweave_run_cost", "5.5x60", ',currency="EUR"')},
}


def test_an_alert_names_only_metrics_that_somebody_exports(render: Render) -> None:
    known = set(exported()) | OF_PROMETHEUS
    for rule in rules(render):
        assert named(rule["expr"]), rule["alert"]
        assert named(rule["expr"]) <= known, rule["alert"]


def test_every_alert_leads_to_a_runbook(render: Render) -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), flags=re.MULTILINE)
    alerts = rules(render)
    assert sorted(rule["alert"] for rule in alerts) == sorted(headings)
    for rule in alerts:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")
        assert rule["for"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_there_is_no_alert_on_cost_without_a_budget(render: Render) -> None:
    groups_ = render("large", "metrics.prometheusRule.maxRunCost=null")["PrometheusRule", "recommendations"]["spec"][
        "groups"
    ]
    assert "BasketweaveCost" not in {rule["alert"] for group in groups_ for rule in group["rules"]}


def test_promtool_accepts_the_rules(render: Render, tmp_path: Path) -> None:
    done = promtool("check", "rules", write_rules(render, tmp_path))
    assert f"{len(rules(render))} rules found" in done


def test_each_trouble_fires_its_alert_and_no_other_and_a_well_shop_is_quiet(render: Render, tmp_path: Path) -> None:
    assert {rule["alert"] for rule in rules(render)} == set(BROKEN)
    write_rules(render, tmp_path)
    tests = [_case("well", list(WELL.values()), [])]
    for alert, changes in BROKEN.items():
        given = {} if alert == "BasketweaveDown" else WELL
        tests.append(_case(alert, list({**given, **changes}.values()), [alert]))
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", suite)


def test_an_alert_waits_for_its_time(render: Render, tmp_path: Path) -> None:
    """One bad minute pages nobody: five minutes in, nothing that must last longer has fired."""
    patient = [rule["alert"] for rule in rules(render) if _minutes(rule["for"]) > 5]
    assert len(patient) >= 4
    write_rules(render, tmp_path)
    tests = [_case(alert, list({**WELL, **BROKEN[alert]}.values()), [], at="4m") for alert in patient]
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", suite)


def _case(name: str, given: Sequence[Series], firing: Sequence[str], *, at: str = "50m") -> dict[str, Any]:
    expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in firing]
    return {
        "name": name,
        "interval": "1m",
        "input_series": list(given),
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": at,
                "exp_samples": expected,
            }
        ],
    }


def _minutes(duration: str) -> int:
    assert duration.endswith("m"), duration
    return int(duration[:-1])


def write_rules(render: Render, folder: Path) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(render)}))
    return path


def promtool(*arguments: str | Path) -> str:
    """Run promtool; fails with what it says."""
    tool = program("promtool", package="prometheus")
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr)
    return done.stdout
