"""`python -m components.ingest`."""

from components.core.command import run_command

if __name__ == "__main__":
    run_command("ingest", "Read the shop's log and catalogue into day partitions of the data contract.")
