"""python -m components.train, or torchrun --standalone --nproc-per-node 2 -m components.train"""

import functools
from typing import Any

import typer

from components.core.command import load_step, step_command, with_one_sentence

command = step_command("train", "Train the graph convolutional recommender and write its bundle.")


@functools.wraps(command)
def on_every_rank(**given: Any) -> None:
    step = load_step("train")
    from components.train import launch

    launch.on_every_rank(functools.partial(command, **given), step.run)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(on_every_rank)
with_one_sentence(app, prog_name="python -m components.train")
