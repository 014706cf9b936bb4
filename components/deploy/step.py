"""Deploy a promoted bundle: registry, pointer, service, proof. What fails puts the pointer back.

Order: refuse what is not proved; register; move the pointer; start the service, or let the running one swap; wait until
every worker answers with the bundle; ask it one recommendation; name it champion. The old bundle serves until the
new one answers. With deploy.rollout 'staged' the bundle is registered as challenger instead, and the DAG `rollout` goes
on from there.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core.artifact import Artifact, Manifest
from components.core.clock import wall_clock
from components.core.errors import StopError
from components.core.live import Pointer, find_service, is_alive, move_pointer, read_pointer, restore_pointer
from components.core.rollout import barred_sentence, end_rollout, read_rollout, withdraw_candidate
from components.core.settings import Settings
from components.core.step import Step, StepContext, StepReport
from components.core.store import Store
from components.deploy.probe import ServiceClient, wait_until_ready
from components.deploy.registry import CHALLENGER, CHAMPION, Registry
from components.deploy.rollout_record import read_record, write_record
from components.deploy.service_process import start_service, stop_service
from components.deploy.staged import offer

PROMOTE = "promote"


@dataclass(frozen=True)
class Answering:
    """The service, proved to answer with the bundle."""

    url: str
    seconds: float


def run(context: StepContext) -> StepReport:
    bundle, evaluation = context.inputs["bundle"].manifest, context.inputs["evaluation"].manifest
    settings, store = context.settings, context.store
    refuse_unproved(bundle, evaluation)
    refuse_barred(store, bundle)
    if is_staged(settings, store, bundle):
        return offer_challenger(context, bundle, evaluation)
    if not settings.deploy.start_service:
        # Nobody here will see it answer, so it answers here, before the pointer moves.
        check_golden(context.inputs["bundle"], cache=settings.project_home / "bundles")
    started = time.monotonic()
    with store.lock("deploy", doing="deploying"):
        registry = Registry(settings)
        version = registry.register(bundle, evaluation=evaluation)
        end_overtaken(store, bundle)
        with pointed_at(store, bundle, run_id=context.run_id) as pointer:
            answering = take_up(settings, pointer) if settings.deploy.start_service else None
            registry.crown(bundle.content_sha256)
    seconds = time.monotonic() - started
    url = answering.url if answering else None
    deployment = {
        "url": url,
        "bundle": bundle.ref().model_dump(),
        "previous": pointer.previous.model_dump() if pointer.previous else None,
        "registered_model": registry.name,
        "version": version,
        "alias": CHAMPION,
    }
    context.output.path("deployment.json").write_text(json.dumps(deployment, indent=1, sort_keys=True))
    where = f"{url} answers with" if url else "pointer moved to"
    return StepReport(
        summary=f"{where} bundle {bundle.content_sha256[:12]}, {registry.name} v{version}, after {seconds:.1f} s",
        rows=1,
        statistics={"url": url, "version": version, "ready_seconds": answering.seconds if answering else None},
    )


def refuse_unproved(bundle: Manifest, evaluation: Manifest) -> None:
    """Raise StopError unless the gate promoted this very bundle. A missing verdict is a refusal."""
    verdict = evaluation.statistics.get("verdict")
    if verdict != PROMOTE:
        raise StopError(
            f"The bundle {bundle.content_sha256[:12]} is not promoted: the gate says {verdict or 'nothing'!r}. "
            f"Read {evaluation.uri}/report.html."
        )
    judged = [ref.sha256 for ref in evaluation.inputs if ref.kind == "bundle"]
    if judged != [bundle.content_sha256]:
        raise StopError(
            f"The evaluation {evaluation.uri} judged another bundle than {bundle.uri}. Run evaluate on this bundle."
        )


def refuse_barred(store: Store, bundle: Manifest) -> None:
    """Raise StopError for a bundle that was taken back before, until a person lifts the bar."""
    if (barred := barred_sentence(store, bundle.content_sha256)) is not None:
        raise StopError(f"Not deployed: {barred}.")


def is_staged(settings: Settings, store: Store, bundle: Manifest) -> bool:
    """Whether the bundle has to prove itself beside one that serves. The first one ever has nobody beside it."""
    if settings.deploy.rollout != "staged":
        return False
    pointer = read_pointer(store)
    return pointer is not None and pointer.bundle.sha256 != bundle.content_sha256


def offer_challenger(context: StepContext, bundle: Manifest, evaluation: Manifest) -> StepReport:
    """Let the bundle wait for its rollout. It answers its golden request here, before anybody is routed to it."""
    check_golden(context.inputs["bundle"], cache=context.settings.project_home / "bundles")
    pointer = read_pointer(context.store)
    assert pointer is not None
    with context.store.lock("deploy", doing="deploying"):
        # Requests prove it, so the champion must be there to get them.
        answering = take_up(context.settings, pointer) if context.settings.deploy.start_service else None
        version = offer(context.settings, bundle, evaluation, run_id=context.run_id)
    url = answering.url if answering else None
    name = context.settings.deploy.model_name
    deployment = {
        "url": url,
        "bundle": bundle.ref().model_dump(),
        "previous": None,
        "registered_model": name,
        "version": version,
        "alias": CHALLENGER,
    }
    context.output.path("deployment.json").write_text(json.dumps(deployment, indent=1, sort_keys=True))
    return StepReport(
        summary=f"bundle {bundle.content_sha256[:12]}, {name} v{version}, waits for its rollout",
        rows=1,
        statistics={"url": url, "version": version, "ready_seconds": answering.seconds if answering else None},
    )


def end_overtaken(store: Store, bundle: Manifest) -> None:
    """A bundle that is served at once ends the rollout of another: both would not know what they are compared with."""
    running = read_rollout(store)
    if running is None:
        return
    end_rollout(store)
    withdraw_candidate(store, running.challenger.sha256)
    reason = f"bundle {bundle.content_sha256[:12]} was deployed at once"
    write_record(store, read_record(store, running.id).ended(wall_clock(), "ended", reason))


def check_golden(bundle: Artifact, *, cache: Path) -> None:
    """Load the bundle and compare its golden answer; raises ArtifactError."""
    from components.model.bundle import Bundle  # torch, which a deploy beside a service does not need

    loaded = Bundle.load(bundle.local_folder(cache))
    loaded.golden.check(loaded.scorer)


@contextlib.contextmanager
def pointed_at(store: Store, bundle: Manifest, *, run_id: str) -> Iterator[Pointer]:
    """Move the deploy pointer to `bundle`; when the block fails, it goes back to where it was."""
    before = read_pointer(store)
    if before is not None and before.bundle.sha256 == bundle.content_sha256:
        yield before
        return
    pointer = move_pointer(store, bundle.ref(), previous=before.bundle if before else None, run_id=run_id)
    try:
        yield pointer
    except BaseException:
        restore_pointer(store, before)
        raise


def take_up(settings: Settings, pointer: Pointer) -> Answering:
    """See that the project's service answers with the pointer's bundle; starts it where none runs.

    A service that was started here and does not come up with the bundle is stopped again.
    """
    running = find_service(settings)
    if running is not None and not running.follows_pointer:
        raise StopError(
            f"The service at {running.url} serves one bundle given by --bundle and follows no pointer. "
            "Stop it by 'basketweave stop', then deploy again."
        )
    record = running or start_service(settings)
    try:
        client = ServiceClient(settings, record)
        seconds = wait_until_ready(
            client,
            sha256=pointer.bundle.sha256,
            workers=record.workers,
            timeout_seconds=settings.deploy.ready_timeout_seconds,
            still_runs=lambda: is_alive(record),
        )
        ask_once(client, pointer.bundle.sha256)
    except BaseException:
        if running is None:
            stop_service(settings)
        raise
    return Answering(url=record.url, seconds=seconds)


def ask_once(client: ServiceClient, sha256: str) -> None:
    """One recommendation through the front door: the golden request was checked by the workers, this checks HTTP."""
    status, answer = client.post("/recommend", {"k": 1})
    if status != 200 or answer.get("bundle") != sha256 or len(answer["items"]) != 1:
        raise StopError(f"The service at {client.url} answered a recommendation with {status}: {answer}.")


STEP = Step(
    name="deploy",
    kind="deployment",
    inputs=("bundle", "evaluation"),
    sections=("deploy",),
    rooms=("components.deploy",),
    run=run,
    # Whether it is live cannot be told from the artifact: the service may have been stopped since.
    reusable=False,
)
