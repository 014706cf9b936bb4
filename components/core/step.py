"""A step: inputs in, one artifact out; and `execute`, the one way to run it (command, Airflow task or pod).

`execute` derives the output's place from the step's inputs, settings, code and `as_of`. If a whole artifact is already
there, the step is not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from components.core.artifact import MANIFEST, Artifact, ArtifactRef, ArtifactWriter, Manifest, content_sha256
from components.core.clock import wall_clock
from components.core.errors import ArtifactError, BusyError, full_disk_as_sentence
from components.core.hashing import code_sha256, json_sha256
from components.core.pipeline_metrics import Sample, check_samples, finite
from components.core.progress import Progress
from components.core.settings import Settings
from components.core.store import Store
from components.core.usage import Stopwatch, publish_step

T = TypeVar("T")

UNFINISHED = ".unfinished"


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """Everything that a step's function may look at."""

    settings: Settings
    as_of: datetime | None
    """None only in `ingest`, which finds it in the log."""
    run_id: str
    store: Store
    inputs: Mapping[str, Artifact]
    output: ArtifactWriter
    options: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    unfinished: str | None = None
    """Folder of the store, relative, where the step may keep what a later try with the same key takes up."""

    @property
    def moment(self) -> datetime:
        """`as_of`, for the steps that must have one."""
        if self.as_of is None:
            raise ArtifactError("This step needs --as-of: none of its inputs carries one.")
        return self.as_of

    def track(self, items: Iterable[T], *, description: str, total: int | None = None) -> Iterable[T]:
        """Iterate under a progress bar."""
        return self.progress.track(items, description=description, total=total)


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step says of its work."""

    summary: str
    """One line with the number that matters."""
    rows: int
    statistics: Mapping[str, Any] = field(default_factory=dict)
    as_of: datetime | None = None
    """Set by `ingest` alone."""
    samples: Sequence[Sample] = ()
    """Figures for Prometheus, of the metrics declared in components/core/pipeline_metrics.py."""
    num_gpus: int = 0
    """How many GPUs the step kept busy."""

    def __post_init__(self) -> None:
        check_samples(self.samples)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The declaration of a step; one stands at the end of each `components/<name>/step.py`, called STEP."""

    name: str
    kind: str
    """Kind of the artifact it makes."""
    inputs: tuple[str, ...]
    """Kinds it reads."""
    sections: tuple[str, ...]
    """Settings sections that shape its artifact."""
    rooms: tuple[str, ...]
    """Packages whose sources shape its artifact."""
    run: Callable[[StepContext], StepReport]
    fingerprint: Callable[[StepContext], Any] | None = None
    """What else decides the output: `ingest` gives its source files' hashes, `deploy` the live pointer."""
    reusable: bool = True
    stands: Callable[[StepContext], bool] | None = None
    """Whether what the step left outside of its artifact (the feature store) is still there; if not, it runs again."""
    chooses: Mapping[str, Callable[[Store], ArtifactRef]] = field(default_factory=dict)
    """Inputs that the step finds in the store where its caller names none: the bundle that serves, say."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How an `execute` went."""

    ref: ArtifactRef
    manifest: Manifest
    is_reused: bool
    seconds: float = 0.0
    num_gpus: int = 0


def execute(
    step: Step,
    *,
    settings: Settings,
    inputs: Mapping[str, ArtifactRef],
    run_id: str,
    as_of: datetime | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    wait_seconds: float = 0,
) -> Execution:
    """Run a step, or find that it has run. `options` are the call's own (a window of days), not settings.

    Raises BusyError where another process runs the step in the same store and does not end within `wait_seconds`,
    DiskFullError where there is no space left.
    """
    watch = Stopwatch(step.name)
    store = Store(settings.artifact_root)
    try:
        # Of two runs of a step at once one wins whole: they would share event tables, the feature store, checkpoints.
        with (
            full_disk_as_sentence(step.name, root=store.root),
            store.lock(f"step-{step.name}", doing=f"running the step '{step.name}'", timeout_seconds=wait_seconds),
        ):
            execution = _execute(
                step,
                store,
                settings=settings,
                inputs=inputs,
                run_id=run_id,
                as_of=as_of,
                options=options,
                progress=progress,
            )
    except BusyError:
        raise  # the step did not run, so it did not fail
    except Exception:
        publish_step(settings, store, run_id=run_id, usage=watch.usage("failed"))
        raise
    usage = watch.usage("reused" if execution.is_reused else "done", num_gpus=execution.num_gpus)
    publish_step(settings, store, run_id=run_id, usage=usage, manifest=execution.manifest)
    return replace(execution, seconds=usage.seconds)


def _execute(
    step: Step,
    store: Store,
    *,
    settings: Settings,
    inputs: Mapping[str, ArtifactRef],
    run_id: str,
    as_of: datetime | None,
    options: Mapping[str, Any] | None,
    progress: Progress | None,
) -> Execution:
    inputs = {**{kind: choose(store) for kind, choose in step.chooses.items() if kind not in inputs}, **inputs}
    opened = {kind: Artifact.open(store, ref.uri, sha256=ref.sha256, kind=kind) for kind, ref in inputs.items()}
    missing = set(step.inputs) - set(opened)
    if missing:
        raise ArtifactError(f"{step.name} needs {', '.join(sorted(missing))}. Run the step that makes it first.")
    moment = as_of or max((artifact.as_of for artifact in opened.values()), default=None)
    with store.staging() as folder:
        context = StepContext(
            settings=settings,
            as_of=moment,
            run_id=run_id,
            store=store,
            inputs=opened,
            output=ArtifactWriter(folder),
            options=dict(options or {}),
            progress=progress or Progress(),
        )
        relative = f"{step.kind}/{_key(step, context)}"
        done = _finished(store, relative, step.kind) if step.reusable else None
        if done is not None and (step.stands is None or step.stands(context)):
            _point_latest(store, step.kind, done)
            return Execution(ref=done.ref(), manifest=done, is_reused=True)
        report = step.run(replace(context, unfinished=f"{UNFINISHED}/{relative}"))
        manifest = _commit(step, context, report, relative)
        # What tries with other inputs or settings left there has no use once a newer one is through.
        store.delete(f"{UNFINISHED}/{step.kind}")
    _point_latest(store, step.kind, manifest)
    return Execution(ref=manifest.ref(), manifest=manifest, is_reused=False, num_gpus=report.num_gpus)


def latest(store: Store, kind: str) -> ArtifactRef:
    """The artifact of a kind that was made or confirmed last: what a step's command reads when told nothing."""
    pointer = f"{kind}/latest.json"
    if not store.exists(pointer):
        raise ArtifactError(f"There is no '{kind}' yet under {store.root}. Run the step that makes it first.")
    try:
        return ArtifactRef.model_validate(store.read_json(pointer))
    except (ValueError, ValidationError) as error:
        raise ArtifactError(
            f"{store.uri(pointer)} cannot be read. Run the step that makes '{kind}' again, which writes it anew."
        ) from error


def _key(step: Step, context: StepContext) -> str:
    parts = {
        "step": step.name,
        "inputs": {kind: artifact.manifest.content_sha256 for kind, artifact in context.inputs.items()},
        "settings": context.settings.section_sha256(step.sections),
        "code": code_sha256(step.rooms),
        "as_of": context.as_of,
        "options": context.options,
        "fingerprint": step.fingerprint(context) if step.fingerprint else None,
        # Two runs of a step that is never reused must not meet in one folder.
        "run_id": None if step.reusable else context.run_id,
    }
    return json_sha256(parts)[:20]


def _finished(store: Store, relative: str, kind: str) -> Manifest | None:
    """The manifest of a whole artifact; a damaged one is deleted, so that the step runs again."""
    if not store.exists(f"{relative}/{MANIFEST}"):
        return None
    try:
        artifact = Artifact.open(store, store.uri(relative), kind=kind)
        artifact.verify()
    except ArtifactError:
        store.delete(relative)
        return None
    return artifact.manifest


def _commit(step: Step, context: StepContext, report: StepReport, relative: str) -> Manifest:
    as_of = report.as_of or context.moment
    files = context.output.files()
    partitions = sorted(context.output.partitions, key=lambda part: part.day)
    manifest = Manifest(
        kind=step.kind,
        uri=context.store.uri(relative),
        content_sha256=content_sha256(step.kind, files, partitions),
        rows=report.rows,
        as_of=as_of,
        summary=report.summary,
        statistics=report.statistics,
        files=files,
        partitions=partitions,
        samples=finite(report.samples),
        inputs=[artifact.manifest.ref() for _, artifact in sorted(context.inputs.items())],
        step=step.name,
        settings_sha256=context.settings.section_sha256(step.sections),
        code_sha256=code_sha256(step.rooms),
        run_id=context.run_id,
        created_at=wall_clock(),
    )
    (context.output.folder / MANIFEST).write_text(manifest.sealed().model_dump_json(indent=1))
    context.store.commit_folder(context.output.folder, relative, last=MANIFEST)
    return Artifact.open(context.store, manifest.uri, kind=step.kind).manifest


def _point_latest(store: Store, kind: str, manifest: Manifest) -> None:
    store.write_json(f"{kind}/latest.json", manifest.ref().model_dump())
