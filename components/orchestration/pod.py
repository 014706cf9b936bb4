"""A step as a Kubernetes pod of its own: the same step's command, in its image, told its inputs on its command line.

The pod's settings come from a ConfigMap and a Secret of BASKETWEAVE_… variables; its output's reference comes back
through the file that Airflow's sidecar reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import XComArg
from kubernetes.client import models as k8s

from components.core.command import KINDS
from components.core.errors import SettingsError
from components.core.sections import PodResources
from components.core.settings import Settings
from components.orchestration.component import asset, task_arguments, task_of

SCRATCH = "/tmp"  # noqa: S108  # the pod's own, emptied with it
HOME = f"{SCRATCH}/basketweave"
RETURN_FILE = "/airflow/xcom/return.json"  # where Airflow's sidecar looks
# Absent values become empty strings, which the step's command takes as not given.
AS_OF_SCHEDULE = "{{ params.as_of or (dag_run.logical_date or dag_run.run_after).isoformat() }}"
AS_OF_LOG = (
    "{{ params.as_of or ((dag_run.logical_date or dag_run.run_after).isoformat()"
    " if dag_run.run_type == 'backfill' else '') }}"
)
DAY = "{{ params.day or '' }}"


def pod_component(name: str, *, inputs: Sequence[XComArg], settings: Settings) -> XComArg:
    """The step `name` as a task that runs a pod; returns its output, the inputs of others."""
    orchestration = settings.orchestration
    pod = KubernetesPodOperator(
        task_id=name,
        name=f"basketweave-{name}",
        namespace=orchestration.namespace,
        image=_image(name, settings),
        cmds=["python", "-m", f"components.{name}"],
        arguments=_arguments(inputs, settings),
        env_from=_environment(settings),
        # What the ConfigMap says of the service's home holds no longer: this pod's only writable folder is its own.
        env_vars=[k8s.V1EnvVar(name="HOME", value=SCRATCH), k8s.V1EnvVar(name="BASKETWEAVE_HOME", value=HOME)],
        container_resources=_resources(name, settings),
        node_selector=dict(settings.orchestration.train_node_selector) if name == "train" else {},
        tolerations=_tolerations(name, settings),
        service_account_name=orchestration.service_account,
        automount_service_account_token=False,
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True, seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault")
        ),
        container_security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        volumes=[k8s.V1Volume(name="scratch", empty_dir=k8s.V1EmptyDirVolumeSource())],
        volume_mounts=[k8s.V1VolumeMount(name="scratch", mount_path=SCRATCH)],
        labels={"app.kubernetes.io/name": "basketweave", "app.kubernetes.io/component": name},
        outlets=[asset(settings, KINDS[name])],
        do_xcom_push=True,
        durable=True,  # a worker that dies leaves the pod running; the next try finds it
        deferrable=True,
        on_finish_action="delete_pod",
        active_deadline_seconds=int(orchestration.step_timeout_minutes * 60),
        **task_arguments(settings),
    )
    for source in inputs:
        task_of(source) >> pod
    return pod.output


def _arguments(inputs: Sequence[XComArg], settings: Settings) -> list[str]:
    # A backfill has several runs at once: each waits for its turn at a step, as a try does after a pod that died.
    wait_minutes = f"{settings.orchestration.step_timeout_minutes:g}"
    arguments = ["--run-id", "{{ run_id }}", "--result", RETURN_FILE, "--wait-minutes", wait_minutes]
    for source in inputs:
        pull = f"ti.xcom_pull(task_ids='{task_of(source).task_id}')"
        arguments += [
            "--input",
            f"{{% set ref = {pull} %}}{{{{ ref['kind'] }}}}={{{{ ref['uri'] }}}}@{{{{ ref['sha256'] }}}}",
        ]
    if not inputs:
        as_of = AS_OF_SCHEDULE if settings.orchestration.as_of == "schedule" else AS_OF_LOG
        arguments += ["--as-of", as_of, "--day", DAY]
    return arguments


def _image(name: str, settings: Settings) -> str:
    orchestration = settings.orchestration
    image = (orchestration.train_image if name == "train" else None) or orchestration.image
    if image is None:
        raise SettingsError("orchestration.mode is 'kubernetes' and orchestration.image is not set. Name the image.")
    return image


def _environment(settings: Settings) -> list[k8s.V1EnvFromSource]:
    sources = []
    if (config_map := settings.orchestration.config_map) is not None:
        sources.append(k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=config_map)))
    if (secret := settings.orchestration.secret) is not None:
        sources.append(k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=secret)))
    return sources


def _resources(name: str, settings: Settings) -> k8s.V1ResourceRequirements | None:
    resources = {str(step): asked for step, asked in settings.orchestration.resources.items()}
    asked = resources.get(name) or resources.get("default") or PodResources()
    requests = {"cpu": asked.cpu, "memory": asked.memory}
    # No CPU limit: throttled, a step takes longer and frees nothing that anybody else would use.
    limits = {"memory": asked.memory_limit or asked.memory}
    if name == "train" and settings.orchestration.train_gpus:
        limits["nvidia.com/gpu"] = str(settings.orchestration.train_gpus)
    given = {
        what: {resource: amount for resource, amount in amounts.items() if amount is not None}
        for what, amounts in (("requests", requests), ("limits", limits))
    }
    return (
        k8s.V1ResourceRequirements(**{what: amounts for what, amounts in given.items() if amounts})
        if any(given.values())
        else None
    )


def _tolerations(name: str, settings: Settings) -> list[k8s.V1Toleration]:
    tolerations = settings.orchestration.train_tolerations if name == "train" else ()
    return [k8s.V1Toleration(**toleration.model_dump(exclude_none=True)) for toleration in tolerations]
