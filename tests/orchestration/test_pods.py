"""The same DAG with a pod a step: what each pod would be, rendered and held to Kubernetes' own schema."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from components.core.command import KINDS, PIPELINE, parse_input
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

    from components.orchestration.environment import dags_folder

    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    settings = {
        "MODE": "kubernetes",
        "IMAGE": "registry.example/basketweave:1",
        "TRAIN_IMAGE": "registry.example/basketweave-cuda:1",
        "TRAIN_GPUS": "1",
        "TRAIN_NODE_SELECTOR": '{"nvidia.com/gpu.present": "true"}',
        "TRAIN_TOLERATIONS": '[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]',
        "RESOURCES": '{"default": {"cpu": "500m", "memory": "1Gi"}, '
        '"train": {"cpu": "4", "memory": "12Gi", "memory_limit": "16Gi"}}',
        "STEP_TIMEOUT_MINUTES": "90",
        "RETRIES": "3",
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
    assert train.arguments[4:6] == ["--wait-minutes", "90"]


def test_a_backfilled_pod_is_told_its_moment_and_others_are_not(pods: dict[str, Any]) -> None:
    arguments = pods["ingest"].arguments
    assert arguments[arguments.index("--as-of") + 1] == "2024-05-01T00:00:00+00:00"
    assert arguments[arguments.index("--day") + 1] == ""
    assert "--as-of" not in pods["validate"].arguments


def test_every_pod_keeps_to_the_schema_and_to_least_privilege(pods: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for name, operator in pods.items():
        pod = request(operator)
        for minor in (29, 33, 36):
            kubernetes_validate.validate(pod, f"1.{minor}", strict=True)
        assert pod["metadata"]["namespace"] == "shop"
        (base,) = [one for one in pod["spec"]["containers"] if one["name"] == "base"]
        assert base["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert {"configMapRef": {"name": "shop-settings"}} in base["envFrom"]
        assert {"secretRef": {"name": "shop-secrets"}} in base["envFrom"]
        gpus = base.get("resources", {}).get("limits", {}).get("nvidia.com/gpu")
        image = "registry.example/basketweave-cuda:1" if name == "train" else "registry.example/basketweave:1"
        assert (base["image"], gpus) == (image, "1" if name == "train" else None)


def test_training_alone_goes_to_a_node_with_a_gpu(pods: dict[str, Any]) -> None:
    for name, operator in pods.items():
        spec = request(operator)["spec"]
        placed = (spec.get("nodeSelector") or {}, spec.get("tolerations") or [])
        wanted = (
            {"nvidia.com/gpu.present": "true"},
            [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        )
        assert placed == (wanted if name == "train" else ({}, [])), name


def test_each_step_asks_for_its_own_share_of_a_node(pods: dict[str, Any]) -> None:
    def resources(name: str) -> dict[str, Any]:
        (base,) = [one for one in request(pods[name])["spec"]["containers"] if one["name"] == "base"]
        return base["resources"]

    assert resources("train") == {
        "requests": {"cpu": "4", "memory": "12Gi"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"},
    }
    assert resources("graph") == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}


def test_a_pod_is_retried_ends_in_time_and_outlives_the_worker_that_watches_it(pods: dict[str, Any]) -> None:
    for name, operator in pods.items():
        pod = request(operator)
        assert operator.retries == 3, name
        assert pod["spec"]["activeDeadlineSeconds"] == 90 * 60
        assert pod["spec"]["restartPolicy"] == "Never"
        assert operator.durable is True
        assert operator.reattach_on_restart is True
        # By these the next try finds the pod of the one that died.
        assert operator.deferrable is True


def test_what_a_pod_writes_to_is_its_own_and_gone_with_it(pods: dict[str, Any]) -> None:
    for operator in pods.values():
        spec = request(operator)["spec"]
        (base,) = [one for one in spec["containers"] if one["name"] == "base"]
        mounts = {mount["name"]: mount["mountPath"] for mount in base["volumeMounts"]}
        assert mounts["scratch"] == "/tmp"
        assert all("emptyDir" in volume for volume in spec["volumes"])
        variables = {entry["name"]: entry["value"] for entry in base["env"]}
        assert variables["HOME"] == "/tmp"
        assert variables["BASKETWEAVE_HOME"] == "/tmp/basketweave"


def test_resources_are_of_steps_and_a_tolerations_value_goes_with_equal() -> None:
    from components.core.sections.running import StepOrDefault
    from components.core.settings import load_settings

    assert get_args(StepOrDefault) == ("default", *KINDS)
    with pytest.raises(SettingsError, match=r"orchestration\.resources\.trian.*should be 'default'.*'train'"):
        load_settings(orchestration={"resources": {"trian": {"cpu": "1"}}})
    with pytest.raises(SettingsError, match="a value with operator 'Equal'"):
        load_settings(orchestration={"train_tolerations": [{"key": "gpu", "value": "yes"}]})


def test_a_pod_needs_an_image() -> None:
    from components.core.settings import load_settings
    from components.orchestration.pod import pod_component

    with pytest.raises(SettingsError, match=r"orchestration\.image is not set"):
        pod_component("ingest", inputs=[], settings=load_settings(orchestration={"mode": "kubernetes"}))
