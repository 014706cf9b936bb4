"""Bundles of a line of text and their evaluations, through the project's own step execution: manifests are real."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from components.core.artifact import ArtifactRef, Manifest
from components.core.settings import Settings
from components.core.step import Step, StepContext, StepReport, execute
from components.deploy.step import STEP

AS_OF = datetime(2020, 3, 1, tzinfo=UTC)


def committed(
    settings: Settings, kind: str, text: str, *, inputs: dict[str, ArtifactRef] | None = None, **statistics: Any
) -> Manifest:
    """A small artifact through the project's own step execution; these tests look at manifests alone."""

    def run(context: StepContext) -> StepReport:
        context.output.path("content.txt").write_text(text)
        return StepReport(summary=f"{kind} {text}", rows=1, statistics=statistics)

    inputs = inputs or {}
    step = Step(name=kind, kind=kind, inputs=tuple(inputs), sections=(), rooms=(), run=run, fingerprint=lambda _: text)
    return execute(step, settings=settings, inputs=inputs, run_id="run-1", as_of=AS_OF).manifest


def bundle_and_evaluation(settings: Settings, text: str = "a", verdict: str = "promote") -> tuple[Manifest, Manifest]:
    bundle = committed(settings, "bundle", text)
    evaluation = committed(settings, "evaluation", text + verdict, inputs={"bundle": bundle.ref()}, verdict=verdict)
    return bundle, evaluation


def deploy(settings: Settings, bundle: Manifest, evaluation: Manifest, run_id: str = "run-1") -> Manifest:
    refs = {"bundle": bundle.ref(), "evaluation": evaluation.ref()}
    return execute(STEP, settings=settings, inputs=refs, run_id=run_id).manifest
