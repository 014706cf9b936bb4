"""The same DAG with a pod a step: what each pod would be, rendered and held to Kubernetes' own schema."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.core.command import PIPELINE, parse_input
from components.core.errors import SettingsError

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
users: [{name: none, user: {}}]
"""


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, airflow_database: None) -> dict[str, Any]:
    """The pod request of every step, by name, rendered as Airflow would before it asks the cluster."""
    from airflow.dag_processing.dagbag import DagBag

    from components.core.command import KINDS
    from components.orchestration.environment import dags_folder

    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    settings = {
        "MODE": "kubernetes",
        "IMAGE": "registry.example/basketweave:1",
        "TRAIN_IMAGE": "registry.example/basketweave-cuda:1",
        "TRAIN_GPUS": "1",
        "CONFIG_MAP": "shop-settings",
        "SECRET": "shop-secrets",
        "NAMESPACE": "shop",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"BASKETWEAVE_ORCHESTRATION__{name}", value)
    bag = DagBag(str(dags_folder()))
    assert bag.import_errors == {}
    dag = bag.dags["recommender"]
    ti = SimpleNamespace(
        xcom_pull=lambda task_ids: {"kind": KINDS[task_ids], "uri": f"s3://shop/{task_ids}", "sha256": "ab", "rows": 1}
    )
    context = {
        "ti": ti,
        "run_id": "manual__1",
        "params": {"as_of": None, "day": None},
        "dag_run": SimpleNamespace(run_type="backfill", logical_date=datetime(2024, 5, 1, tzinfo=UTC), run_after=None),
    }
    rendered = {}
    for name in PIPELINE:
        operator = dag.get_task(name)
        operator.config_file = str(tmp_path / "kubeconfig")
        operator.arguments = [dag.get_template_env().from_string(text).render(context) for text in operator.arguments]
        rendered[name] = operator
    return rendered


def request(operator: Any) -> dict[str, Any]:
    from kubernetes.client import ApiClient

    return ApiClient().sanitize_for_serialization(operator.build_pod_request_obj())


def test_each_step_is_its_own_command_with_its_inputs(pods: dict[str, Any]) -> None:
    train = pods["train"]
    assert train.cmds == ["python", "-m", "components.train"]
    given = [
        parse_input(text) for flag, text in zip(train.arguments, train.arguments[1:], strict=False) if flag == "--input"
    ]
    assert [(kind, ref.uri, ref.sha256) for kind, ref in given] == [
        ("clean", "s3://shop/validate", "ab"),
        ("features", "s3://shop/features", "ab"),
        ("graph", "s3://shop/graph", "ab"),
    ]
    assert train.arguments[:4] == ["--run-id", "manual__1", "--result", "/airflow/xcom/return.json"]


def test_a_backfilled_pod_is_told_its_moment_and_others_are_not(pods: dict[str, Any]) -> None:
    arguments = pods["ingest"].arguments
    assert arguments[arguments.index("--as-of") + 1] == "2024-05-01T00:00:00+00:00"
    assert arguments[arguments.index("--day") + 1] == ""
    assert "--as-of" not in pods["validate"].arguments


def test_every_pod_keeps_to_the_schema_and_to_least_privilege(pods: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for name, operator in pods.items():
        pod = request(operator)
        kubernetes_validate.validate(pod, "1.33", strict=True)
        assert pod["metadata"]["namespace"] == "shop"
        (base,) = [one for one in pod["spec"]["containers"] if one["name"] == "base"]
        assert base["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert {"configMapRef": {"name": "shop-settings"}} in base["envFrom"]
        assert {"secretRef": {"name": "shop-secrets"}} in base["envFrom"]
        gpus = base.get("resources", {}).get("limits", {}).get("nvidia.com/gpu")
        image = "registry.example/basketweave-cuda:1" if name == "train" else "registry.example/basketweave:1"
        assert (base["image"], gpus) == (image, "1" if name == "train" else None)


def test_a_pod_needs_an_image() -> None:
    from components.core.settings import load_settings
    from components.orchestration.pod import pod_component

    with pytest.raises(SettingsError, match=r"orchestration\.image is not set"):
        pod_component("ingest", inputs=[], settings=load_settings(orchestration={"mode": "kubernetes"}))
