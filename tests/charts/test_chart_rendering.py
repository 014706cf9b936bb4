"""The chart, rendered by the real Helm: what is installed, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "basketweave"
SIZES = ("laptop", "small", "large")
OLDEST, NEWEST = 29, 36
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]


def pod_spec(manifests: dict[tuple[str, str], dict[str, Any]], name: str = "shop-basketweave") -> dict[str, Any]:
    return manifests["Deployment", name]["spec"]["template"]["spec"]


@pytest.mark.parametrize("size", SIZES)
def test_lint_finds_nothing(run_helm: Callable[..., subprocess.CompletedProcess[str]], size: str) -> None:
    done = run_helm("lint", "--strict", "--values", CHART / "ci" / f"{size}-values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "minor",
    [OLDEST, *(pytest.param(minor, marks=pytest.mark.slow) for minor in range(OLDEST + 1, NEWEST)), NEWEST],
)
def test_manifests_keep_strictly_to_kubernetes(render: Render, size: str, minor: int) -> None:
    checked = 0
    for (kind, _), manifest in render(size).items():
        if kind not in CUSTOM:
            kubernetes_validate.validate(manifest, f"1.{minor}", strict=True)
            checked += 1
    assert checked >= 6


def test_the_strict_check_would_notice_a_misspelt_field(render: Render) -> None:
    deployment = render()["Deployment", "shop-basketweave"]
    deployment["spec"]["replicsa"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replicsa"):
        kubernetes_validate.validate(deployment, "1.33", strict=True)


def test_a_laptop_gets_these_objects_and_no_more(render: Render) -> None:
    assert set(render("laptop", release="basketweave")) == {
        ("ConfigMap", "basketweave"),
        ("ConfigMap", "basketweave-environment"),
        ("Deployment", "basketweave"),
        ("Pod", "basketweave-test"),
        ("Service", "basketweave"),
        ("ServiceAccount", "basketweave"),
    }


def test_production_also_gets_scaling_budget_policy_and_monitoring(render: Render) -> None:
    kinds = {kind for kind, _ in render("large")}
    assert kinds >= {
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
        "PrometheusRule",
    }
    assert "replicas" not in render("large")["Deployment", "recommendations"]["spec"]


def test_custom_resources_are_off_by_default(render: Render) -> None:
    assert CUSTOM.isdisjoint(kind for kind, _ in render("laptop"))


def test_every_container_is_locked_down(render: Render) -> None:
    manifests = render("large")
    pods = [pod_spec(manifests, "recommendations"), manifests["Pod", "recommendations-test"]["spec"]]
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_probes_ask_what_they_are_for(render: Render) -> None:
    [container] = pod_spec(render())["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}


def test_selectors_hold_nothing_that_an_upgrade_changes_and_match_the_pods(render: Render) -> None:
    manifests = render("large", 'podLabels={"app.kubernetes.io/name": "other"}')
    deployment = manifests["Deployment", "recommendations"]["spec"]
    selector = deployment["selector"]["matchLabels"]
    assert set(selector) == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    assert manifests["Service", "recommendations"]["spec"]["selector"] == selector
    assert manifests["PodDisruptionBudget", "recommendations"]["spec"]["selector"]["matchLabels"] == selector
    assert manifests["NetworkPolicy", "recommendations"]["spec"]["podSelector"]["matchLabels"] == selector
    test_labels = manifests["Pod", "recommendations-test"]["metadata"]["labels"]
    assert not selector.items() <= test_labels.items()


def test_a_changed_setting_rolls_the_pods_and_an_equal_one_does_not(render: Render) -> None:
    def checksum(*overrides: str) -> str:
        template = render("small", *overrides)["Deployment", "shop-basketweave"]["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    assert checksum() == checksum("replicas=3")
    assert checksum() != checksum("settings.serve.max_k=7")


def test_names_stay_under_63_characters(render: Render) -> None:
    manifests = render("laptop", release="a" * 53)
    assert max(len(name) for _, name in manifests) <= 63
    assert len({name for kind, name in manifests if kind == "ConfigMap"}) == 2


def test_a_digest_wins_over_the_tag_and_the_default_is_the_charts_version(render: Render) -> None:
    assert pod_spec(render("laptop"))["containers"][0]["image"] == "basketweave:0.1.0"
    assert "@sha256:9f86" in pod_spec(render("large"), "recommendations")["containers"][0]["image"]


def test_a_budget_appears_only_where_more_than_one_pod_runs(render: Render) -> None:
    assert ("PodDisruptionBudget", "shop-basketweave") in render("small")
    assert ("PodDisruptionBudget", "shop-basketweave") not in render("small", "replicas=1")


def test_the_network_lets_in_gateway_and_prometheus_and_out_to_names_and_storage(render: Render) -> None:
    policy = render("large")["NetworkPolicy", "recommendations"]["spec"]
    callers = [list(peer) for peer in policy["ingress"][0]["from"]]
    assert callers == [["namespaceSelector", "podSelector"], ["podSelector"]]
    assert policy["ingress"][1]["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "monitoring"
    }
    ports = [[(port["port"], port["protocol"]) for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[(53, "UDP"), (53, "TCP")], [(443, "TCP")], [(6379, "TCP")]]
    assert policy["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]


def test_stores_are_reached_by_secrets_of_others_making_and_through_the_network(render: Render) -> None:
    manifests = render("small")
    variables = {one["name"]: one.get("valueFrom", {}) for one in pod_spec(manifests)["containers"][0]["env"]}
    assert variables["BASKETWEAVE_FEATURE_STORE__ONLINE_URL"]["secretKeyRef"] == {
        "name": "basketweave-redis",
        "key": "redis-url",
    }
    assert variables["BASKETWEAVE_FEATURE_STORE__REGISTRY_URL"]["secretKeyRef"] == {
        "name": "basketweave-postgresql",
        "key": "registry-url",
    }
    assert "Secret" not in {kind for kind, _ in manifests}
    egress = manifests["NetworkPolicy", "shop-basketweave"]["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in egress] == [[53, 53], [443], [6379]]


def test_claims_are_mounted_where_the_settings_look(render: Render) -> None:
    manifests = render("laptop", release="basketweave")
    mounts = {mount["name"]: mount for mount in pod_spec(manifests, "basketweave")["containers"][0]["volumeMounts"]}
    variables = manifests["ConfigMap", "basketweave-environment"]["data"]
    assert mounts["artifacts"]["mountPath"] == variables["BASKETWEAVE_STORAGE_ROOT"]
    assert mounts["features"]["mountPath"] == f"{variables['BASKETWEAVE_HOME']}/demo/feast"
    assert mounts["features"]["subPath"] == "home/demo/feast"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["replicsa=3"], "additional properties 'replicsa' not allowed"),
        (['replicas="two"'], "at '/replicas': got string, want integer"),
        (["settings.serve.wrokers=3"], "at '/settings/serve': additional properties 'wrokers' not allowed"),
        (["settings.train.max_epochs=0"], "at '/settings/train/max_epochs'"),
        (['settings.serve.api_keys=["k"]'], "additional properties 'api_keys' not allowed"),
        (['image.digest="sha256:12"'], "at '/image/digest'"),
        (['storage.uri="/data"'], "at '/storage/uri'"),
        (['extraEnv=[{"name": "BASKETWEAVE_HOME", "value": "/"}]'], "at '/extraEnv/0/name'"),
        (
            ['apiKeys.existingSecret=""'],
            "apiKeys.existingSecret is empty: the service listens beyond its pod only with",
        ),
        (['storage.uri=""'], "storage.uri and storage.existingClaim are both empty"),
        (['storage.existingClaim="c"'], "storage.uri and storage.existingClaim are both set"),
        (['features.existingClaim="c"'], "redis.existingSecret and features.existingClaim are both set"),
        (
            ['storage.uri=""', 'storage.existingClaim="c"'],
            "settings.orchestration.mode is 'kubernetes' and storage.uri is empty",
        ),
        (['redis.existingSecret=""'], "settings.orchestration.mode is 'kubernetes' and redis.existingSecret is empty"),
        (["autoscaling.enabled=true", "autoscaling.minReplicas=20"], "autoscaling.minReplicas is 20"),
        (
            ["autoscaling.enabled=true", "resources.requests.cpu=null"],
            "autoscaling.enabled needs resources.requests.cpu",
        ),
        (["metrics.prometheusRule.enabled=true"], "metrics.prometheusRule.runbookUrl is empty"),
        (["preStopSeconds=45"], "terminationGracePeriodSeconds must be above preStopSeconds"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(refusal: Callable[..., str], overrides: list[str], sentence: str) -> None:
    assert sentence in refusal(*overrides)


def test_every_value_is_explained_and_known_to_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def check(node: dict[str, Any], rule: dict[str, Any], path: str) -> None:
        while "$ref" in rule:
            rule = schema["definitions"][rule["$ref"].rpartition("/")[2]]
        if "properties" not in rule:
            return
        assert rule["additionalProperties"] is False, path
        assert set(node) <= set(rule["properties"]), path
        if path != "settings":
            assert set(rule["properties"]) - {"global"} == set(node) or path.startswith(("settings", "affinity")), path
        for key, value in node.items():
            if isinstance(value, dict):
                check(value, rule["properties"][key], f"{path}.{key}".lstrip("."))

    check(values, schema, "")


class Service(BaseHTTPRequestHandler):
    """Answers like the service, to one key."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_allowed = self.headers["Authorization"] == "Bearer right" and self.path == "/recommend"
        items = [{"title": f"item {n}"} for n in range(body["k"])]
        answer = {"bundle": "ab" * 32, "items": items} if is_allowed else {"detail": "This API key is not known."}
        self.send_response(200 if is_allowed else 403)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def service_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def run_test_pod(render: Render, url: str, keys: str) -> subprocess.CompletedProcess[str]:
    """What the test pod would run, with its own environment but for the address."""
    [container] = render()["Pod", "shop-basketweave-test"]["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    variables = {entry["name"]: entry.get("value", keys) for entry in container["env"]} | {"SERVICE_URL": url}
    command = [sys.executable, "-c", *container["args"]]
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=False)


def test_the_test_pod_asks_for_one_recommendation_and_prints_it(render: Render, service_url: str) -> None:
    done = run_test_pod(render, service_url, '["right", "other"]')
    assert (done.returncode, done.stdout) == (0, "bundle abababababab recommends: item 0, item 1, item 2\n")


def test_the_test_pod_fails_with_a_sentence(render: Render, service_url: str) -> None:
    done = run_test_pod(render, service_url, '["wrong"]')
    assert done.returncode == 1
    assert "answered 403" in done.stderr
    done = run_test_pod(render, "http://127.0.0.1:1", '["right"]')
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
