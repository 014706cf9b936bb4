from components.core.command import run_command

run_command("features", "Compute user and item features point in time, and publish them to the feature store.")
