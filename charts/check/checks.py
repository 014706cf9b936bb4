"""Each check as a function: what it looked at, how much, and every problem in a sentence."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import kubernetes_validate
import yaml

from charts.check import tools
from charts.check.helm import CHART, CHARTS, NAMESPACE, RELEASE, UMBRELLA, Manifest, ci_files, helm, helm_path, render

KUBERNETES = tuple(f"1.{minor}" for minor in range(29, 37))
CUSTOM = frozenset({"ServiceMonitor", "PrometheusRule"})
CHECKOV_CONFIG = CHARTS.parent / ".checkov.yaml"
# What somebody may get wrong, and what must stand in the error.
MISTAKES = {
    "replicsa=3": "replicsa",
    'replicas="two"': "/replicas",
    "settings.serve.wrokers=3": "wrokers",
    "settings.train.max_epochs=0": "/settings/train/max_epochs",
    'settings.orchestration.resources={"trian": {"cpu": "1"}}': "trian",
    'settings.orchestration.train_tolerations=[{"operator": "Exists"}]': "/settings/orchestration/train_tolerations/0",
    'settings.feature_store.online_url="redis://:password@redis:6379/0"': "online_url",
    'image.digest="sha256:12"': "/image/digest",
    'storage.uri="/data"': "/storage/uri",
    'storage.uri=""': "storage.uri",
    'redis.existingSecret=""': "redis.existingSecret",
    'apiKeys.existingSecret=""': "apiKeys.existingSecret",
    'service.port="http"': "/service/port",
    'networkPolicy.egressToRedis=[{"prots": []}]': "prots",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one check found."""

    check: str
    subject: str
    looked_at: str
    problems: Sequence[str] = ()


def lint(values: Path, *, chart: Path = CHART) -> Result:
    done = helm("lint", "--strict", chart, "--values", values)
    output = done.stdout + done.stderr
    problems = [
        line.strip() for line in output.splitlines() if re.match(r"\s*(\[(WARNING|ERROR)\]|- at |Error:)", line)
    ]
    if done.returncode != 0 and not problems:
        problems = [output.strip()]
    return Result(check="helm lint --strict", subject=values.name, looked_at="1 chart", problems=problems)


def template(values: Path) -> Result:
    rendered = render([values])
    problems = [rendered.error] if rendered.error else []
    return Result(
        check="helm template", subject=values.name, looked_at=f"{len(rendered.manifests)} manifests", problems=problems
    )


def validate(manifests: Iterable[Manifest], *, versions: Sequence[str] = KUBERNETES) -> list[str]:
    """Every word of the manifests that a version of Kubernetes does not know; custom resources are left out."""
    problems = []
    for manifest in manifests:
        if manifest["kind"] in CUSTOM:
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                name = f"{manifest['kind']}/{manifest['metadata'].get('name')}"
                problems.append(f"{name}, Kubernetes {version}: {' '.join(str(error).split())[:300]}")
                break
    return problems


def schemas(values: Path, *, versions: Sequence[str] = KUBERNETES) -> Result:
    manifests = [one for one in render([values]).manifests if one["kind"] not in CUSTOM]
    problems = validate(manifests, versions=versions) if manifests else ["nothing was rendered"]
    looked_at = f"{len(manifests)} manifests × {len(versions)} versions"
    return Result(check="kubernetes-validate --strict", subject=values.name, looked_at=looked_at, problems=problems)


def mistakes() -> Result:
    """A wrong value must be refused by an error that names its key."""
    [small] = [file for file in ci_files() if file.name.startswith("small")]
    problems = []
    for override, key in MISTAKES.items():
        error = render([small], overrides=[override]).error
        if not error:
            problems.append(f"{override} is accepted")
        elif key not in error:
            problems.append(f"{override} is refused without naming {key}: {error}")
    return Result(
        check="errors name the key", subject=small.name, looked_at=f"{len(MISTAKES)} mistakes", problems=problems
    )


def custom_resources(manifests: Sequence[Manifest], *, subject: str) -> Result:
    """ServiceMonitor and PrometheusRule against the operator's own types, by round trip."""
    custom = [manifest for manifest in manifests if manifest["kind"] in CUSTOM]
    python = tools.python_with("operator-models", tools.OPERATOR_MODELS)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "custom.yaml"
        file.write_text(yaml.safe_dump_all(custom))
        done = subprocess.run(
            [python, Path(__file__).with_name("round_trip.py"), file], capture_output=True, text=True, check=False
        )
    counted, *problems = done.stdout.splitlines() or [""]
    if counted != f"checked {len(custom)}" or not custom:
        problems = [*problems, f"{counted!r} of {len(custom)}: {done.stderr.strip()[-500:]}"]
    return Result(check="custom resources", subject=subject, looked_at=f"{len(custom)} resources", problems=problems)


def policies(manifests: Sequence[Manifest], *, subject: str, config: Path = CHECKOV_CONFIG) -> Result:
    """checkov's rules, all but those that .checkov.yaml gives a reason to break. Nothing is fetched."""
    python = tools.python_with("checkov", tools.CHECKOV)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rendered.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        command = [python, "-m", "checkov.main", "-f", file, "--config-file", config, "--compact", "-o", "json"]
        done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, check=False, cwd=folder)
    try:
        report = json.loads(done.stdout)
        failed = report["results"]["failed_checks"]
        passed = report["summary"]["passed"]
    except (ValueError, KeyError, TypeError):
        return Result(check="checkov", subject=subject, looked_at="?", problems=[(done.stdout + done.stderr)[-500:]])
    problems = [f"{one['check_id']} {one['check_name']}: {one['resource']}" for one in failed]
    if not passed:
        problems.append("no rule was checked")
    return Result(check="checkov", subject=subject, looked_at=f"{passed} rules hold", problems=problems)


def rules(manifests: Sequence[Manifest], *, subject: str) -> Result:
    """The alerts, by Prometheus' own promtool."""
    promtool = shutil.which("promtool")
    found = [manifest for manifest in manifests if manifest["kind"] == "PrometheusRule"]
    if promtool is None:
        problem = "promtool is not installed; Debian's package 'prometheus' has it"
        return Result(check="promtool check rules", subject=subject, looked_at="nothing", problems=[problem])
    problems, count = [] if found else ["no rules were rendered"], 0
    with tempfile.TemporaryDirectory() as folder:
        for number, manifest in enumerate(found):
            file = Path(folder) / f"rules-{number}.yaml"
            file.write_text(yaml.safe_dump({"groups": manifest["spec"]["groups"]}))
            done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                problems.append((done.stdout + done.stderr).strip())
            count += sum(map(int, re.findall(r"(\d+) rules found", done.stdout)))
    return Result(check="promtool check rules", subject=subject, looked_at=f"{count} rules", problems=problems)


def notes(values: Path) -> Result:
    """What NOTES.txt tells to type names what was rendered: objects, ports, containers, the release."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [helm_path(), "install", RELEASE, CHART, "--dry-run=client", "--namespace", NAMESPACE, "--values", values],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": folder, "KUBECONFIG": f"{folder}/none"},
        )
    text = done.stdout.partition("NOTES:")[2]
    commands = [line.strip() for line in text.splitlines() if re.match(r"\s+(kubectl|helm) ", line)]
    manifests = {(one["kind"].lower(), one["metadata"]["name"]): one for one in render([values]).manifests}
    problems = [f"{command}: {what}" for command in commands for what in _wrong_in(command, manifests)]
    if not commands:
        problems.append(f"there are no commands: {done.stderr.strip()}")
    return Result(check="NOTES.txt", subject=values.name, looked_at=f"{len(commands)} commands", problems=problems)


def _wrong_in(command: str, manifests: dict[tuple[str, str], Manifest]) -> Iterable[str]:
    if f"--namespace {NAMESPACE}" not in command:
        yield f"not in the namespace {NAMESPACE}"
    if command.startswith("helm ") and not re.match(rf"helm \w+ {RELEASE}\b", command):
        yield f"not of the release {RELEASE}"
    for kind, name in re.findall(r"\b(deployment|service)/(\S+)", command):
        manifest = manifests.get((kind, name))
        if manifest is None:
            yield f"there is no {kind} {name}"
            continue
        ports = [port["port"] for port in manifest["spec"].get("ports", ())]
        for port in re.findall(r"\d+:(\d+)", command):
            if int(port) not in ports:
                yield f"{kind} {name} has no port {port}"
        for container in re.findall(r"--container (\S+)", command):
            if container not in [one["name"] for one in manifest["spec"]["template"]["spec"]["containers"]]:
                yield f"{kind} {name} has no container {container}"


STUB_SCHEMA = {"type": "object", "properties": {"executor": {"type": "string"}}}


def umbrella(*, is_airflow_wanted: bool) -> Result:
    """The chart with Airflow as its optional dependency. A stub stands in for the official chart, which is not fetched:
    what is checked is our part of it, the condition and the values that it is handed."""
    wanted = "true" if is_airflow_wanted else "false"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "charts"
        for chart in (CHART, UMBRELLA):
            shutil.copytree(chart, copy / chart.name, ignore=shutil.ignore_patterns("*.tgz", "Chart.lock"))
        stub = copy / "airflow"
        (stub / "templates").mkdir(parents=True)
        (stub / "Chart.yaml").write_text("apiVersion: v2\nname: airflow\nversion: 1.18.0\n")
        (stub / "values.schema.json").write_text(json.dumps(STUB_SCHEMA))
        (stub / "templates" / "values.yaml").write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-airflow\ndata:\n"
            '  executor: {{ .Values.executor }}\n  values: {{ omit .Values "global" "enabled" | toJson | quote }}\n'
        )
        own = copy / UMBRELLA.name
        declared = (own / "Chart.yaml").read_text()
        (own / "Chart.yaml").write_text(declared.replace("https://airflow.apache.org", "file://../airflow"))
        built = helm("dependency", "build", "--skip-refresh", own)
        if built.returncode != 0:
            built = helm("dependency", "update", "--skip-refresh", own)
        linted = helm("lint", "--strict", own, "--set", f"airflow.enabled={wanted}")
        rendered = render([], overrides=[f"airflow.enabled={wanted}"], chart=own)
    problems = [done.stdout + done.stderr for done in (built, linted) if done.returncode != 0]
    problems += [rendered.error] if rendered.error else validate(rendered.manifests, versions=KUBERNETES[::7])
    airflow = [one for one in rendered.manifests if one["metadata"]["name"] == f"{RELEASE}-airflow"]
    if bool(airflow) != is_airflow_wanted and not problems:
        problems.append(f"airflow.enabled={wanted} and {len(airflow)} objects of Airflow")
    if airflow:
        example = yaml.safe_load((CHART / "examples" / "airflow-values.yaml").read_text())
        if json.loads(airflow[0]["data"]["values"]) != example:
            problems.append("the values handed to Airflow are not those of examples/airflow-values.yaml")
    looked_at = f"{len(rendered.manifests)} manifests"
    return Result(check="Airflow as a dependency", subject=f"enabled: {wanted}", looked_at=looked_at, problems=problems)


def all_checks() -> list[Callable[[], Result]]:
    """Every check, the cheap ones first."""
    files = ci_files()
    largest = [file for file in files if file.name.startswith("large")]

    def on_manifests(check: Callable[..., Result], file: Path) -> Callable[[], Result]:
        return lambda: check(render([file]).manifests, subject=file.name)

    return [
        *((lambda file=file: lint(file)) for file in files),
        *((lambda file=file: template(file)) for file in files),
        mistakes,
        *((lambda file=file: notes(file)) for file in files),
        *(on_manifests(rules, file) for file in largest),
        *((lambda file=file: schemas(file)) for file in files),
        lambda: umbrella(is_airflow_wanted=True),
        lambda: umbrella(is_airflow_wanted=False),
        *(on_manifests(custom_resources, file) for file in largest),
        # A laptop's image is loaded by hand, without a digest, and its network is open.
        *(on_manifests(policies, file) for file in files if not file.name.startswith("laptop")),
    ]
