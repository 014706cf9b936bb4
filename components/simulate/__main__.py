"""`python -m components.simulate --users 400 --items 300 --days 120 --seed 7 --out FOLDER`"""

from __future__ import annotations

import typer

from components.core.command import with_one_sentence
from components.simulate.command import command

if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    with_one_sentence(app, prog_name="python -m components.simulate")
