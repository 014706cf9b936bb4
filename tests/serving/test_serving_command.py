"""`python -m serving`, up to the moment when BentoML takes over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import serving.command
from components.core.errors import ArtifactError, BusyError, SettingsError
from components.core.live import (
    ServiceRecord,
    find_service,
    last_service,
    process_start,
    service_record_path,
    write_service_record,
)
from components.core.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BASKETWEAVE_HOME", str(tmp_path))
    return load_settings()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, ServiceRecord]]:
    """What BentoML would have been started with."""
    calls: list[tuple[Settings, ServiceRecord]] = []
    monkeypatch.setattr(serving.command, "_run", lambda settings, record: calls.append((settings, record)))
    return calls


def serve(*arguments: str) -> None:
    result = CliRunner().invoke(serving.command.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output


def own_record(**changes: object) -> ServiceRecord:
    fields = {
        "host": "127.0.0.1",
        "port": 1,
        "pid": os.getpid(),
        "started_at": process_start(os.getpid()),
        "workers": 1,
    }
    return ServiceRecord(**{**fields, "follows_pointer": True, **changes})


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['serving', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('serving', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'bentoml', 'feast', 'fastapi', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--bundle" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_a_host_that_is_not_loopback_is_refused_without_keys_in_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", "--host", "0.0.0.0"]
    environment = {**os.environ, "BASKETWEAVE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "The service listens on 0.0.0.0 only with API keys." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_host_that_is_not_loopback_is_served_with_keys(
    settings: Settings, started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASKETWEAVE_SERVE__API_KEYS", '["a-key"]')
    serve("--host", "0.0.0.0")
    assert started[0][1].host == "0.0.0.0"


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1.evil", ""])
def test_a_host_must_be_an_address(settings: Settings, started: list, host: str) -> None:
    with pytest.raises(SettingsError, match="is no IP address"):
        serving.command.serve(host=host or " ")


def test_a_folder_without_a_manifest_is_no_bundle(settings: Settings, started: list, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no bundle"):
        serving.command.serve(bundle=tmp_path)
    assert started == []


def test_a_free_port_is_chosen_announced_and_taken_again_next_time(settings: Settings, started: list) -> None:
    serve()
    serve_again_after_death(settings)
    serve()
    (_, first), (_, second) = started
    assert 1024 < first.port == second.port
    assert last_service(settings) == second
    assert (second.host, second.pid, second.follows_pointer) == ("127.0.0.1", os.getpid(), True)


def serve_again_after_death(settings: Settings) -> None:
    """The record as a process that has ended leaves it."""
    record = last_service(settings)
    assert record is not None
    write_service_record(settings, record.model_copy(update={"started_at": record.started_at - 100}))


def test_a_taken_port_is_refused(settings: Settings, started: list) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"Port {port} of 127.0.0.1 is taken"):
            serving.command.serve(port=port)
    assert last_service(settings) is None


def test_a_second_service_that_follows_the_pointer_is_refused(settings: Settings, started: list) -> None:
    write_service_record(settings, own_record(port=4444))
    with pytest.raises(BusyError, match=r"served already, at http://127\.0\.0\.1:4444"):
        serving.command.serve()


def test_a_bundle_served_by_hand_leaves_the_running_services_record_alone(
    settings: Settings, started: list, tmp_path: Path
) -> None:
    live = own_record(port=4444)
    write_service_record(settings, live)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    serve("--bundle", str(tmp_path / "bundle"))
    assert started[0][0].serve.bundle == str(tmp_path / "bundle")
    assert last_service(settings) == live


def test_a_record_of_a_dead_process_or_of_a_reused_pid_is_no_service(settings: Settings) -> None:
    assert find_service(settings) is None
    write_service_record(settings, own_record())
    assert find_service(settings) == own_record()
    write_service_record(settings, own_record(started_at=process_start(os.getpid()) - 60))
    assert find_service(settings) is None
    write_service_record(settings, own_record(pid=2**22 - 1))
    assert find_service(settings) is None
    service_record_path(settings).write_text("{")
    assert find_service(settings) is None


def test_the_settings_of_the_command_line_reach_the_workers(settings: Settings, started: list) -> None:
    serve("--workers", "3", "--port", "45871")
    used, record = started[0]
    assert (used.serve.workers, record.workers, record.port) == (3, 3, 45871)


def test_an_ipv6_record_has_a_url_with_brackets() -> None:
    assert own_record(host="::1", port=80).url == "http://[::1]:80"
