"""`python -m components.validate`."""

from components.core.command import run_command

if __name__ == "__main__":
    run_command("validate", "Judge each day's events and the catalogue; send bad rows to quarantine.")
