"""What a cluster would do with our DAGs, without a cluster: `python cluster.py FILE` runs `recommender` and then
`monitoring` in mode 'kubernetes', and each pod that Airflow would ask for is run as a process, from the rendered
request and nothing else.

A pod's process gets the request's own command, arguments and environment (ConfigMaps and Secrets from FILE), and a
folder of its own for each volume, empty at its start and deleted at its end, so that pods share no disk. FILE is JSON:
{"config_maps": {name: {…}}, "secrets": {name: {…}}, "sandboxes": folder, "journal": file}.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import kubernetes_validate

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
users: [{name: none, user: {}}]
"""
RETURN = "return.json"


def environment_of(container: dict[str, Any], cluster: dict[str, Any]) -> dict[str, str]:
    """The container's variables as the kubelet would make them: envFrom in order, env on top."""
    variables: dict[str, str] = {}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            variables |= cluster["config_maps"][source["configMapRef"]["name"]]
        else:
            variables |= cluster["secrets"][source["secretRef"]["name"]]
    return variables | {entry["name"]: entry["value"] for entry in container["env"]}


def run_pod(operator: Any, context: Any, cluster: dict[str, Any]) -> dict[str, Any]:
    """Run the pod's base container; returns what it leaves for Airflow's sidecar."""
    from kubernetes.client import ApiClient

    pod = ApiClient().sanitize_for_serialization(operator.build_pod_request_obj(context))
    kubernetes_validate.validate(pod, "1.33", strict=True)
    [base] = [one for one in pod["spec"]["containers"] if one["name"] == "base"]
    sandbox = Path(tempfile.mkdtemp(dir=cluster["sandboxes"], prefix=f"{operator.task_id}-"))
    folders = {mount["mountPath"]: sandbox / mount["name"] for mount in base["volumeMounts"]}
    for folder in folders.values():
        folder.mkdir()
    root = sandbox / "root"  # in place of the image's file system, which is read-only
    root.mkdir()

    def inside(text: str) -> str:
        for mount, folder in folders.items():
            if text == mount or text.startswith(f"{mount}/"):
                return f"{folder}{text.removeprefix(mount)}"
        return text

    command = [sys.executable if part == "python" else inside(part) for part in (*base["command"], *base["args"])]
    variables = {name: inside(value) for name, value in environment_of(base, cluster).items()}
    variables |= {"PATH": os.environ["PATH"], "TMPDIR": str(folders["/tmp"]), "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(command, env=variables, cwd=root, capture_output=True, text=True, check=False)
    entry = {
        "dag": operator.dag_id,
        "task": operator.task_id,
        "returncode": done.returncode,
        "output": (done.stdout + done.stderr)[-4000:],
        "written_to_image": sorted(str(path.relative_to(root)) for path in root.rglob("*")),
        "variables": sorted(variables),
        "gpus": base.get("resources", {}).get("limits", {}).get("nvidia.com/gpu"),
    }
    with Path(cluster["journal"]).open("a") as journal:
        journal.write(json.dumps(entry) + "\n")
    if done.returncode != 0:
        raise RuntimeError(f"{operator.task_id} ended with {done.returncode}: {entry['output']}")
    ref = json.loads(next(folder / RETURN for folder in folders.values() if (folder / RETURN).exists()).read_text())
    shutil.rmtree(sandbox)
    return ref


def main() -> None:
    cluster = json.loads(Path(sys.argv[1]).read_text())
    kubeconfig = Path(sys.argv[1]).with_name("kubeconfig")
    kubeconfig.write_text(KUBECONFIG)
    os.environ["KUBECONFIG"] = str(kubeconfig)
    from airflow.dag_processing.dagbag import DagBag
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.utils.db import initdb

    def execute(self: Any, context: Any) -> dict[str, Any]:
        self.config_file = str(kubeconfig)
        return run_pod(self, context, cluster)

    KubernetesPodOperator.execute = execute
    initdb()
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if bag.import_errors:
        sys.exit(str(bag.import_errors))
    states = {}
    for name in ("recommender", "monitoring"):
        run = bag.dags[name].test(logical_date=None)
        states[name] = {"run": str(run.state), **{ti.task_id: str(ti.state) for ti in run.get_task_instances()}}
    Path(cluster["states"]).write_text(json.dumps(states))


if __name__ == "__main__":
    main()
