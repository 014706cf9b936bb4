"""`basketweave` with tiny steps in place of the real ones, as a process of its own: `python tiny_run.py run …`.

TINY_VERDICT is what its evaluation says; TINY_FAIL names a step that fails, TINY_SLEEP one that sleeps a minute.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestration"))

from tiny_steps import TinySteps

import components.core.command
from components.core.errors import ContractError
from components.core.step import Step, StepContext, StepReport


class NoisySteps(TinySteps):
    """Also writes to both descriptors, below Python, as some libraries do."""

    def __call__(self, name: str) -> Step:
        step = super().__call__(name)

        def run(context: StepContext) -> StepReport:
            os.write(1, b"NOISE on stdout\n")
            os.write(2, b"NOISE on stderr\n")
            if os.environ.get("TINY_SLEEP") == name:
                (context.settings.home / "asleep").touch()
                time.sleep(60)
            for _ in context.track(range(3), description="counting"):
                pass
            return step.run(context)

        return Step(name=name, kind=step.kind, inputs=step.inputs, sections=(), rooms=step.rooms, run=run)


steps = NoisySteps()
steps.verdict = os.environ.get("TINY_VERDICT", "promote")
if failing := os.environ.get("TINY_FAIL"):
    steps.errors[failing] = lambda call: ContractError("Half of the [prices] are negative. Check the mapping.")
# Before anybody has imported the name from there.
components.core.command.load_step = steps

from components.cli import main  # noqa: E402

main()
