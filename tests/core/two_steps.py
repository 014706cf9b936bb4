"""Two tiny steps, so that the way steps run can be seen: 'list' writes numbers, 'sum' adds them up."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from components.core.artifact import ArtifactRef
from components.core.settings import Settings
from components.core.step import Execution, Step, StepContext, StepReport, execute

AS_OF = datetime(2024, 5, 1, tzinfo=UTC)


class Steps:
    """`runs` counts how often each step's function was called."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runs = {"list": 0, "sum": 0}
        self.numbers = [1, 2, 3]
        self.list_step = Step(
            name="list",
            kind="numbers",
            inputs=(),
            sections=(),
            rooms=("components.core.errors",),
            run=self._list,
            fingerprint=lambda _: self.numbers,
        )
        self.sum_step = Step(
            name="sum",
            kind="total",
            inputs=("numbers",),
            sections=("split",),
            rooms=("components.core.errors",),
            run=self._sum,
        )

    def _list(self, context: StepContext) -> StepReport:
        self.runs["list"] += 1
        context.output.write_table("numbers.parquet", pa.table({"number": self.numbers}))
        return StepReport(summary="numbers", rows=len(self.numbers), as_of=AS_OF)

    def _sum(self, context: StepContext) -> StepReport:
        self.runs["sum"] += 1
        total = sum(context.inputs["numbers"].table("numbers.parquet")["number"].to_pylist())
        context.output.path("total.txt").write_text(str(total))
        context.output.path("timings.html", is_report=True).write_text(f"run {self.runs['sum']}")
        return StepReport(summary=f"total {total}", rows=1, statistics={"total": total})

    def list_numbers(self, *, numbers: list[int] | None = None) -> ArtifactRef:
        self.numbers = numbers or self.numbers
        return execute(self.list_step, settings=self.settings, inputs={}, run_id="test").ref

    def sum(
        self,
        numbers: ArtifactRef,
        *,
        settings: Settings | None = None,
        changes: dict[str, Any] | None = None,
        **call: Any,
    ) -> Execution:
        """`changes` are of the step's declaration, `call` of this call of `execute`."""
        step = dataclasses.replace(self.sum_step, **(changes or {}))
        call = {"run_id": "test", **call}
        return execute(step, settings=settings or self.settings, inputs={"numbers": numbers}, **call)
