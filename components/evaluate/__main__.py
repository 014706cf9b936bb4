from components.core.command import run_command

run_command("evaluate", "Judge the bundle on the hold-out, against baselines, and say whether it may serve.")
