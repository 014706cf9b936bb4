"""The command, as a person meets it."""

from __future__ import annotations

import os
import subprocess
import sys

from judged_log import FIRST_DAY, good_log, good_row


def run(shop) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.validate"],
        env={**os.environ, "BASKETWEAVE_HOME": str(shop.folder / "home")},
        capture_output=True,
        text=True,
    )


def test_the_command_prints_the_rows_law_and_nothing_else(shop):
    shop.ingest(good_log(3) + good_row(99, FIRST_DAY, quantity=0))
    done = run(shop)
    assert (done.returncode, done.stderr) == (0, "")
    line = "validate 61 rows = 60 kept + 0 duplicates + 1 quarantined · 3 days · 28 checks"
    assert " ".join(done.stdout.split()).startswith(line)
    assert run(shop).stdout.rstrip().endswith("reused")


def test_a_refused_log_is_one_sentence_and_exit_status_1(shop):
    shop.ingest(good_log(1) + "".join(good_row(100 + number, FIRST_DAY, quantity=0) for number in range(20)))
    done = run(shop)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "quality.html" in done.stderr
