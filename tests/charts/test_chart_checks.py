"""The chart's whole check list, by the functions of `python -m charts.check`; and that each of them can fail."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import missing

from charts.check import checks
from charts.check.checks import CHECKOV_CONFIG, Result, custom_resources, lint, notes, policies, rules, umbrella
from charts.check.helm import CHART, NoHelmError, ci_files, helm_path, render

LARGE = CHART / "ci" / "large-values.yaml"
SMALL = CHART / "ci" / "small-values.yaml"


@pytest.fixture(scope="module", autouse=True)
def has_helm() -> None:
    try:
        helm_path()
    except NoHelmError as error:
        missing(f"no Helm: {error}")


@pytest.fixture(scope="module")
def large() -> list[dict[str, Any]]:
    return list(render([LARGE]).manifests)


def one(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """A copy of the manifest of a kind."""
    return copy.deepcopy(next(manifest for manifest in manifests if manifest["kind"] == kind))


def test_there_are_values_for_a_laptop_a_small_and_a_large_shop() -> None:
    assert [file.name.partition("-")[0] for file in ci_files()] == ["laptop", "large", "small"]


def test_a_wrong_value_is_refused_by_an_error_that_names_its_key() -> None:
    result = checks.mistakes()
    assert result.problems == []
    assert result.looked_at == "14 mistakes"


@pytest.mark.parametrize("file", ci_files(), ids=lambda file: file.name)
def test_the_notes_commands_name_what_is_installed(file: Path) -> None:
    result = notes(file)
    assert result.problems == []
    assert result.looked_at == "4 commands"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("kubectl get pods", "not in the namespace shop"),
        ("helm test other --namespace shop", "not of the release shop"),
        ("kubectl --namespace shop logs deployment/recommender", "there is no deployment recommender"),
        ("kubectl --namespace shop port-forward service/recommendations 8080:81", "has no port 81"),
        ("kubectl --namespace shop logs deployment/recommendations --container app", "has no container app"),
    ],
)
def test_a_command_of_the_notes_that_would_fail_is_seen(
    command: str, problem: str, large: list[dict[str, Any]]
) -> None:
    by_name = {(manifest["kind"].lower(), manifest["metadata"]["name"]): manifest for manifest in large}
    assert any(problem in found for found in checks._wrong_in(command, by_name))


def test_lint_sees_a_misspelt_value(tmp_path: Path) -> None:
    assert lint(SMALL).problems == []
    broken = tmp_path / "broken-values.yaml"
    broken.write_text(SMALL.read_text() + "replicsa: 3\n")
    assert "replicsa" in "".join(lint(broken).problems)


def test_promtool_sees_a_rule_that_does_not_parse(large: list[dict[str, Any]]) -> None:
    assert rules(large, subject="large").problems == []
    broken = one(large, "PrometheusRule")
    broken["spec"]["groups"][0]["rules"][0]["expr"] = "sum(rate("
    assert rules([broken], subject="broken").problems != []
    assert rules([], subject="none").problems == ["no rules were rendered"]


def test_the_airflow_that_is_there_and_the_one_that_comes_along_are_handed_the_same(
    large: list[dict[str, Any]],
) -> None:
    example = yaml.safe_load((CHART / "examples" / "airflow-values.yaml").read_text())
    whole = yaml.safe_load((CHART.parent / "basketweave-with-airflow" / "values.yaml").read_text())
    assert {key: value for key, value in whole["airflow"].items() if key != "enabled"} == example
    sources = yaml.safe_load(example["extraEnvFrom"])
    orchestration = whole["basketweave"]["settings"]["orchestration"]
    assert sources == [
        {"configMapRef": {"name": orchestration["config_map"]}},
        {"secretRef": {"name": orchestration["secret"]}},
    ]


def test_training_alone_is_told_of_gpus(large: list[dict[str, Any]]) -> None:
    values = yaml.safe_load(LARGE.read_text())["settings"]["orchestration"]
    assert values["train_gpus"] == 1
    assert values["train_node_selector"] == {"nvidia.com/gpu.present": "true"}
    for manifest in large:
        if manifest["kind"] in {"Deployment", "Pod"}:
            assert "nvidia.com/gpu" not in str(manifest), manifest["kind"]


@pytest.mark.slow
@pytest.mark.parametrize("file", ci_files(), ids=lambda file: file.name)
def test_manifests_keep_strictly_to_every_kubernetes(file: Path) -> None:
    result = checks.schemas(file)
    assert result.problems == []
    assert result.looked_at.endswith("× 8 versions")


@pytest.mark.slow
def test_airflow_is_an_optional_dependency() -> None:
    assert umbrella(is_airflow_wanted=True).problems == []
    assert umbrella(is_airflow_wanted=False).problems == []


@pytest.mark.slow
def test_the_operators_own_types_know_every_field(large: list[dict[str, Any]]) -> None:
    assert custom_resources(large, subject="large").problems == []
    monitor = one(large, "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["intervall"] = "15s"
    rule = one(large, "PrometheusRule")
    rule["spec"]["groups"][0]["rules"][0]["for"] = "soon"
    problems = "\n".join(custom_resources([monitor, rule], subject="broken").problems)
    assert ".spec.endpoints[0].intervall is no field" in problems
    assert "PrometheusRule/recommendations" in problems


def skipped() -> list[tuple[str, str]]:
    """(rule, the comment above it) of .checkov.yaml."""
    return re.findall(r"((?:^ *#.*\n)+)  - (CKV\w+)", CHECKOV_CONFIG.read_text(), flags=re.MULTILINE)


@pytest.mark.slow
def test_checkovs_rules_hold_but_for_those_with_a_reason(large: list[dict[str, Any]], tmp_path: Path) -> None:
    assert policies(large, subject="large").problems == []
    assert len(skipped()) == len(re.findall(r"^ *- CKV", CHECKOV_CONFIG.read_text(), flags=re.MULTILINE))
    assert all(len(reason) > 40 for reason, _ in skipped())
    bare = tmp_path / "checkov.yaml"
    bare.write_text("framework: kubernetes\n")
    broken = {problem.partition(" ")[0] for problem in policies(large, subject="large", config=bare).problems}
    assert broken == {rule for _, rule in skipped()}, "a rule that is skipped and not broken needs no reason"
    deployment = one(large, "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
    assert "CKV_K8S_16" in "".join(policies([deployment], subject="broken").problems)


def test_the_command_ends_with_one_where_a_check_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from charts.check import __main__ as command

    def found(*problems: str) -> Callable[[], Result]:
        return lambda: Result(check="helm lint", subject="small", looked_at="1 chart", problems=problems)

    for problems, status in (((), 0), (("replicsa is unknown",), 1)):
        monkeypatch.setattr(command, "all_checks", lambda problems=problems: [found(), found(*problems)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        assert ended.value.code == status
        output = capsys.readouterr().out
        assert f"{status} of 2 checks failed" in output
        assert ("replicsa is unknown" in output) == bool(status)


def test_nothing_is_left_beside_the_charts() -> None:
    """Dependencies are fetched into copies: a .tgz or a lock beside the chart would be packaged with it."""
    assert list(CHART.parent.glob("*/charts")) == []
    assert list(CHART.parent.glob("*/Chart.lock")) == []
