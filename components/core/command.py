"""The command of one step: `python -m components.graph --help`. In a pod it is the whole entry point."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from components.core.artifact import ArtifactRef
from components.core.clock import parse_time, wall_clock
from components.core.errors import BasketweaveError, SettingsError
from components.core.libraries import prepare_libraries
from components.core.settings import Settings, load_settings
from components.core.store import Store, write_file_whole

# What each step makes, in the order of the pipeline; the same as its STEP.kind (a test holds it), known here without
# importing the step.
KINDS: Mapping[str, str] = {
    "ingest": "events",
    "validate": "clean",
    "features": "features",
    "graph": "graph",
    "train": "bundle",
    "evaluate": "evaluation",
    "deploy": "deployment",
    "monitor": "monitoring",
}
# The steps of the DAG `recommender`; the others run on a schedule of their own.
PIPELINE = tuple(name for name in KINDS if name != "monitor")


def load_step(name: str) -> Any:
    """The STEP that `components/<name>/step.py` declares; imported late, since steps import heavy libraries."""
    prepare_libraries()
    return importlib.import_module(f"components.{name}.step").STEP


def run_command(name: str, summary: str) -> None:
    """Parse the command line of step `name`, run it, print one line. Errors are one sentence and exit status 1."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(step_command(name, summary))
    with_one_sentence(app, prog_name=f"python -m components.{name}")


def step_command(name: str, summary: str) -> Callable[..., None]:
    """The options of step `name` as a function that typer can take."""

    def command(
        given: Annotated[
            list[str] | None,
            typer.Option("--input", help="KIND=URI@SHA256 of an input; the latest of its kind when left out."),
        ] = None,
        as_of: Annotated[str | None, typer.Option(help="Judge time as of this moment (ISO, UTC).")] = None,
        day: Annotated[str | None, typer.Option(help="Ingest this day alone (ISO date) and keep the others.")] = None,
        run_id: Annotated[str | None, typer.Option(help="Name of the run that this step belongs to.")] = None,
        result: Annotated[Path | None, typer.Option(help="Also write the artifact's reference to this file.")] = None,
        wait_minutes: Annotated[
            float, typer.Option(min=0, help="Wait this long for another run of the step to end.")
        ] = 0,
    ) -> None:
        execute_and_print(
            name,
            inputs=dict(map(parse_input, given or [])),
            as_of=parse_time(as_of) if as_of else None,
            options={"day": day} if day else {},
            run_id=run_id,
            result=result,
            wait_seconds=wait_minutes * 60,
        )

    command.__doc__ = summary
    return command


def execute_and_print(
    name: str,
    *,
    inputs: dict[str, ArtifactRef],
    as_of: datetime | None = None,
    options: dict[str, Any] | None = None,
    run_id: str | None = None,
    result: Path | None = None,
    settings: Settings | None = None,
    wait_seconds: float = 0,
) -> ArtifactRef:
    """Run one step with the latest of each input that is not given."""
    from components.core.step import execute, latest

    settings = settings or load_settings()
    step = load_step(name)
    store = Store(settings.artifact_root)
    # What a step chooses itself is left to it.
    wanted = [kind for kind in step.inputs if kind in inputs or kind not in step.chooses]
    refs = {kind: inputs.get(kind) or latest(store, kind) for kind in wanted}
    execution = execute(
        step,
        settings=settings,
        inputs=refs,
        run_id=run_id or f"manual-{wall_clock():%Y%m%dT%H%M%S}",
        as_of=as_of,
        options=options,
        wait_seconds=wait_seconds,
    )
    state = "reused" if execution.is_reused else f"{execution.seconds:.1f} s"
    Console().print(f"[bold]{name}[/]  {escape(execution.manifest.summary)}  [dim]{state}[/]", highlight=False)
    if result is not None:
        write_file_whole(result, execution.ref.model_dump_json().encode())
    return execution.ref


def parse_input(text: str) -> tuple[str, ArtifactRef]:
    """'graph=/root/graph/ab12@sha' -> ('graph', reference)."""
    kind, has_kind, rest = text.partition("=")
    uri, has_hash, sha256 = rest.rpartition("@")
    if not (has_kind and has_hash):
        raise SettingsError(f"--input {text!r} is not KIND=URI@SHA256, such as graph=/data/graph/1f2e@9ac0….")
    return kind, ArtifactRef(kind=kind, uri=uri, sha256=sha256, rows=0)


def with_one_sentence(app: typer.Typer, *, prog_name: str) -> None:
    """Run a typer app; a `BasketweaveError` becomes one sentence on stderr and exit status 1."""
    try:
        app(prog_name=prog_name)
    except BasketweaveError as error:
        Console(stderr=True).print(
            f"[red]{escape(prog_name)}:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        sys.exit(1)


def dump_ref(ref: ArtifactRef) -> dict[str, Any]:
    """A reference as plain JSON values, for XCom."""
    return json.loads(ref.model_dump_json())
