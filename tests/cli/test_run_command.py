"""`basketweave run` at its rim: lines, log, exit status, second run at once. The steps are tiny, Airflow is real."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.cli_showcase import service_answers_with
from components.core.command import PIPELINE
from components.core.settings import load_settings
from components.core.store import Store

TINY_RUN = Path(__file__).with_name("tiny_run.py")


def run(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TINY_RUN), "run"],
        # Tiny bundles cannot be served.
        env={**os.environ, "BASKETWEAVE_HOME": str(home), "BASKETWEAVE_DEPLOY__START_SERVICE": "false", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def task_lines(output: str) -> list[tuple[str, str]]:
    """(mark, task) of each line about a task."""
    return re.findall(r"^([✓=✗]) (\w+)", output, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    home = tmp_path_factory.mktemp("shop")
    return home, run(home)


def test_each_task_says_what_it_did_in_one_line(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = first
    assert done.returncode == 0, done.stderr
    assert sorted(task_lines(done.stdout)) == sorted(("✓", name) for name in PIPELINE)
    assert re.search(r"^✓ validate +validate is done +\d+\.\d s$", done.stdout, flags=re.MULTILINE)


def test_what_libraries_print_goes_to_the_log(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, done = first
    assert "NOISE" not in done.stdout + done.stderr
    assert done.stderr == ""
    (log,) = (home / "demo" / "logs").glob("run-*.log")
    assert log.read_text().count("NOISE on stdout") == log.read_text().count("NOISE on stderr") == len(PIPELINE)


def test_a_terminal_shows_bars_and_still_none_of_the_noise(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end was closed
            while chunk := os.read(ours, 4096):
                shown.extend(chunk)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    environment = {**os.environ, "BASKETWEAVE_HOME": str(tmp_path), "BASKETWEAVE_DEPLOY__START_SERVICE": "false"}
    environment |= {"TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, str(TINY_RUN), "run"]
    done = subprocess.run(command, env=environment, stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    reader.join(timeout=10)
    text = shown.decode()
    assert done.returncode == 0, text
    assert "counting" in text
    assert "validate is done" in text
    assert [word for word in ("NOISE", "[info", "DAG TEST") if word in text] == []


def test_a_second_run_reuses_and_says_so(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, _ = first
    done = run(home)
    assert done.returncode == 0, done.stderr
    assert {mark for mark, _ in task_lines(done.stdout)} == {"="}
    assert done.stdout.count("reused") == len(PIPELINE)


def test_a_failing_step_ends_the_run_with_its_sentence_and_the_log(tmp_path: Path) -> None:
    done = run(tmp_path, TINY_FAIL="validate")
    assert done.returncode == 1
    assert task_lines(done.stdout) == [("✓", "ingest"), ("✗", "validate")]
    (log,) = (tmp_path / "demo" / "logs").glob("run-*.log")
    assert done.stderr == (
        f"basketweave: validate failed: Half of the [prices] are negative. Check the mapping. The whole log: {log}\n"
    )


def test_a_refused_model_is_said_plainly_with_a_status_of_its_own(tmp_path: Path) -> None:
    done = run(tmp_path, TINY_VERDICT="reject")
    assert done.returncode == 3
    assert task_lines(done.stdout)[-1] == ("✓", "not_promoted")
    assert "verdict reject: beats popularity, enough users" in done.stdout
    assert "Not promoted. What served before goes on serving." in done.stdout


def test_two_runs_at_once_are_one_too_many(tmp_path: Path) -> None:
    root = load_settings(home=tmp_path).artifact_root
    with Store(root).lock("run", doing="testing"):
        done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "basketweave: Another process is running the pipeline of project 'demo'. "
        "Wait for it to finish, then try again.\n"
    )


def test_a_run_that_leaves_no_service_is_no_success(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    home, _ = first
    problem = service_answers_with(load_settings(home=home))
    assert problem is not None
    assert problem.startswith("The service does not run, though the deployment said so.")


@pytest.mark.parametrize(
    "signal_", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=lambda number: number.name
)
def test_an_interrupted_run_ends_at_once_and_says_where(tmp_path: Path, signal_: signal.Signals) -> None:
    environment = {**os.environ, "BASKETWEAVE_HOME": str(tmp_path), "TINY_SLEEP": "graph"}
    command = [sys.executable, str(TINY_RUN), "run"]
    running = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, their children would be deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    asleep = tmp_path / "asleep"
    deadline = time.monotonic() + 240
    while not asleep.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert asleep.exists()
    running.send_signal(signal_)
    _, problem = running.communicate(timeout=30)
    assert running.returncode == 1
    assert problem.startswith("basketweave: graph failed: it was interrupted; what is finished will be reused.")
    assert not list((tmp_path / "demo" / "artifacts" / ".staging").iterdir())
    assert not list((tmp_path / "demo" / "artifacts" / "graph").glob("*/manifest.json"))
