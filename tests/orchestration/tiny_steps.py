"""Steps of a few lines in place of the real ones, to test the machinery around them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from components.core.step import Step, StepContext, StepReport

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
WIRING = {
    "ingest": ("events", ()),
    "validate": ("clean", ("events",)),
    "features": ("features", ("clean",)),
    "graph": ("graph", ("clean",)),
    "train": ("bundle", ("clean", "features", "graph")),
    "evaluate": ("evaluation", ("clean", "features", "bundle")),
    "deploy": ("deployment", ("bundle", "evaluation")),
}

WATCHING = {"monitor": ("monitoring", ("clean",))}
QUIET = {"verdict": "quiet", "why": "", "alarms": [], "window": "2024-02-29", "bundle": "ab", "alarmed_in_a_row": 0}
DRIFT = {
    **QUIET,
    "verdict": "drift",
    "why": "drift: sessions 9 below 20",
    "alarms": ["sessions"],
    "alarmed_in_a_row": 1,
}


class TinySteps:
    """Stands in for `load_step`: counts calls, fails where told to, and keeps what each step was given."""

    def __init__(self) -> None:
        self.contexts: dict[str, list[StepContext]] = {name: [] for name in (*WIRING, *WATCHING)}
        self.errors: dict[str, Callable[[int], Exception | None]] = {}
        self.verdict: str | None = "promote"
        self.drift: dict[str, Any] = QUIET

    def calls(self, name: str) -> int:
        return len(self.contexts[name])

    def __call__(self, name: str) -> Step:
        kind, inputs = {**WIRING, **WATCHING}[name]

        def run(context: StepContext) -> StepReport:
            self.contexts[name].append(context)
            if name in self.errors and (error := self.errors[name](self.calls(name))) is not None:
                raise error
            context.output.path("data.json").write_text(f'"{name}"')
            statistics: dict[str, Any] = {}
            if name == "evaluate" and self.verdict is not None:
                statistics = {"verdict": self.verdict, "failed_gates": ["beats popularity", "enough users"]}
            if name == "monitor":
                statistics = dict(self.drift)
            moment = context.as_of or AS_OF if name == "ingest" else None
            return StepReport(summary=f"{name} is done", rows=len(name), statistics=statistics, as_of=moment)

        return Step(name=name, kind=kind, inputs=inputs, sections=(), rooms=("components.core.errors",), run=run)


def task_states(dag_run: Any) -> dict[str, str]:
    return {instance.task_id: str(instance.state) for instance in dag_run.get_task_instances()}
