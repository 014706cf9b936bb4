from components.core.command import run_command

run_command("deploy", "Register a promoted bundle, move the deploy pointer to it, and wait until the service answers.")
