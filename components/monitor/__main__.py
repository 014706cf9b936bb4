"""Entry point of the step's container: `python -m components.monitor`."""

from components.core.command import run_command

run_command("monitor", "Compare what happens now with what the live bundle was trained on, and say what has drifted.")
