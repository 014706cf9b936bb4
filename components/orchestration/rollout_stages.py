"""The DAG `rollout`: one task a stage, which looks at what the service has seen until the stage is passed or broken.

A stage waits in mode 'reschedule': between two looks it holds no slot of a worker. Everything that it knows is in the
artifact store, so a task that is killed and tried again goes on where it was, and the same DAG runs a service on this
machine and one on Kubernetes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from airflow.sdk import DAG, PokeReturnValue, TriggerRule, XComArg, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from components.core.errors import StopError
from components.core.settings import Settings, load_settings
from components.orchestration.component import asset, note, task_arguments
from components.orchestration.pipeline import START_DATE

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEPLOYMENT = "deployment"
# Airflow's own limit of a stage, past the rollout's: then nobody has looked any more.
GRACE_SECONDS = 86_400.0


def rollout_dag(name: str, *, file: str, doc: str) -> DAG:
    """A DAG that starts when `deploy` has offered a challenger; unscheduled where bundles are deployed at once."""
    settings = load_settings()
    dag = DAG(
        dag_id=name,
        schedule=[asset(settings, DEPLOYMENT)] if settings.deploy.rollout == "staged" else None,
        start_date=START_DATE,
        catchup=False,
        # A second challenger waits until the first one is through.
        max_active_runs=1,
        doc_md=doc,
        description=doc.strip().splitlines()[0],
        tags=["basketweave", settings.project],
    )
    dag.fileloc = file
    return dag


def rollout_stages() -> None:
    """The tasks: begin, one a stage, an approval where the settings ask for it, production, and the watch after it."""
    settings = load_settings()
    rollout_id = _begin(settings)
    before: Any = rollout_id
    names = ["shadow", *(f"canary_{share * 100:g}".replace(".", "_") for share in settings.rollout.shares)]
    for number, name in enumerate(names):
        waiting = _stage(name, number, rollout_id, settings)
        before >> waiting
        before = waiting
    if settings.rollout.approval:
        approval = _approval(settings)
        before >> approval
        before = approval
    production = _production(rollout_id, settings)
    before >> production
    if settings.rollout.approval:
        production >> _send_away(settings)
    if settings.rollout.watch_seconds:
        production >> _stage("watch", len(names), rollout_id, settings)


def _begin(settings: Settings) -> XComArg:
    @task(task_id="begin", **task_arguments(settings))
    def begin() -> str:
        from components.deploy import staged

        rollout_id, sentence = _noted("begin", lambda: staged.begin(load_settings()), lambda found: found[1])
        if rollout_id is None:
            raise AirflowSkipException(sentence)
        return rollout_id

    return begin()


def _stage(name: str, number: int, rollout_id: XComArg, settings: Settings) -> Any:
    @task.sensor(
        task_id=name,
        mode="reschedule",
        poke_interval=settings.rollout.poll_seconds,
        timeout=settings.rollout.stage_timeout_seconds + settings.rollout.watch_seconds + GRACE_SECONDS,
        **task_arguments(settings),
    )
    def look(rollout: str) -> PokeReturnValue:
        return PokeReturnValue(is_done=look_once(name, number, rollout))

    return look(cast(Any, rollout_id))


def look_once(name: str, number: int, rollout_id: str) -> bool:
    """Be in stage `number`, look, and say whether it is passed. A stage that is broken fails the task for good."""
    from components.deploy import staged
    from components.deploy.rollback import RolloutOverError

    settings = load_settings()
    dag_run = get_current_context()["dag_run"]
    started = time.monotonic()
    try:
        if name != "watch" and staged.is_past(settings, rollout_id, number):
            return True  # this task was through before it was killed
        staged.enter(settings, rollout_id, number)
        found = staged.look(settings, rollout_id)
        if found.decision == "go on" and name == "watch":
            staged.finish(settings, rollout_id, f"watched: {found.reason}")
    except (StopError, RolloutOverError) as error:
        _fail(dag_run, name, str(error), started)
        raise AirflowFailException(str(error)) from error
    except OSError as error:
        # The store is away: what the workers see is kept there, and so nothing is lost by looking later.
        logger.warning("The store cannot be read, and the stage waits: %s", error)
        return False
    if found.decision == "wait":
        logger.info("%s: %s", found.step, found.reason)
        return False
    if found.decision != "go on":
        sentence = f"the rollout ended in {found.step}, {found.decision}: {found.reason}"
        _fail(dag_run, name, sentence, started)
        raise AirflowFailException(sentence)
    seconds = time.monotonic() - started
    note(dag_run, task=name, state="done", summary=f"{found.step}: {found.reason}", seconds=seconds)
    return True


def _approval(settings: Settings) -> Any:
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    return ApprovalOperator(
        task_id="approve",
        subject="May the challenger go to production?",
        body="Its report: deploy/rollouts/{{ ti.xcom_pull(task_ids='begin') }}.html in the artifact store.",
        defaults=None,
        # Tried again as any task, but with no time limit: a person answers when they do.
        **{**task_arguments(settings), "execution_timeout": None},
    )


def _send_away(settings: Settings) -> Any:
    """Where approval is refused Airflow skips production: nobody may be left with the challenger then."""

    @task(task_id="send_away", trigger_rule=TriggerRule.ALL_SKIPPED, **task_arguments(settings))
    def send_away() -> str:
        from components.deploy import staged

        # Pulled, not passed: with `begin` itself upstream, not all of them would be skipped.
        rollout_id = get_current_context()["ti"].xcom_pull(task_ids="begin")
        if rollout_id is None:
            raise AirflowSkipException("There was nothing to approve.")
        return _noted("send_away", lambda: staged.refuse(load_settings(), rollout_id), str)

    return send_away()


def _production(rollout_id: XComArg, settings: Settings) -> Any:
    @task(task_id="production", **task_arguments(settings))
    def produce(rollout: str) -> str:
        from components.deploy import staged

        return _noted("production", lambda: staged.promote(load_settings(), rollout), str)

    return produce(cast(Any, rollout_id))


def _noted(name: str, work: Callable[[], T], sentence: Callable[[T], str]) -> T:
    """Do the work and tell the run's journal; what a retry cannot help fails the task for good."""
    from components.deploy.rollback import RolloutOverError

    dag_run = get_current_context()["dag_run"]
    started = time.monotonic()
    try:
        done = work()
    except (StopError, RolloutOverError) as error:
        _fail(dag_run, name, str(error), started)
        raise AirflowFailException(str(error)) from error
    note(dag_run, task=name, state="done", summary=sentence(done), seconds=time.monotonic() - started)
    return done


def _fail(dag_run: Any, name: str, sentence: str, started: float) -> None:
    note(dag_run, task=name, state="failed", summary=sentence, seconds=time.monotonic() - started)
