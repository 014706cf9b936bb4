"""python -m components.graph"""

from components.core.command import run_command

run_command("graph", "Build the item graph and the linear filter from clean events and the catalogue.")
