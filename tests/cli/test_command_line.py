"""The command line as a person meets it: sentences, not tracebacks; exit statuses that scripts can trust."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from components.cli_run import run_parameters, run_settings
from components.cli_settings import settings_page
from components.core.command import with_one_sentence
from components.core.errors import SettingsError, StopError

ROOT = Path(__file__).parents[2]


def basketweave(*arguments: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.cli", *arguments],
        env={**os.environ, "BASKETWEAVE_HOME": str(home), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_settings_page_is_the_settings() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == settings_page(), "Write it anew: .venv/bin/basketweave settings --markdown > docs/settings.md"


def test_every_setting_says_what_it_does() -> None:
    rows = [line for line in settings_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert any(line.startswith("| `train.seed` | `int` | `20261124` |") for line in rows)


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["recommend", "1"], {}, "No service of project 'demo' runs. Start it with: basketweave serve"),
        (["run", "--day", "soon"], {}, "--day 'soon' is not a day. Write an ISO date, such as 2017-12-31."),
        (["run", "--as-of", "soon"], {}, "'soon' is not a time."),
        (["run", "--catalog", "x"], {}, "--catalog goes with --events."),
        (["status"], {"BASKETWEAVE_TRAIN__SEDE": "1"}, "Did you mean 'BASKETWEAVE_TRAIN__SEED'?"),
        (["serve", "--host", "0.0.0.0"], {}, "API key"),
        (["step", "graph"], {}, "There is no 'clean' yet"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_1(
    arguments: list[str], environment: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    done = basketweave(*arguments, home=tmp_path, **environment)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_status_before_the_first_run(tmp_path: Path) -> None:
    done = basketweave("status", home=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "No run yet. Start one with: basketweave run",
        "Deployed: none",
        "Service: does not run",
        "Airflow: does not run",
    ]


def test_stopping_nothing_is_no_error(tmp_path: Path) -> None:
    done = basketweave("stop", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_text_of_an_error_is_never_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise StopError("Column [bold]price[/bold] is missing from shop[1].csv")

    monkeypatch.setattr(sys, "argv", ["basketweave"])
    with pytest.raises(SystemExit) as exit_:
        with_one_sentence(app, prog_name="basketweave")
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "basketweave: Column [bold]price[/bold] is missing from shop[1].csv\n"


def test_another_log_is_another_project_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def project(**given: str) -> str:
        options: dict[str, object] = dict.fromkeys(("profile", "data", "events", "catalog", "project")) | given
        return run_settings(**options).project  # type: ignore[arg-type]

    assert project() == "demo"
    assert project(profile="online_retail") == "online_retail"
    assert project(profile="profiles/My Shop.toml") == "my-shop"
    assert project(events="log.parquet") == "shop"
    assert project(events="log.parquet", project="corner") == "corner"
    monkeypatch.setenv("BASKETWEAVE_PROJECT", "given")
    assert project(profile="online_retail") == "given"


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASKETWEAVE_SOURCE__EVENTS", "old.parquet")
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__RETRIES", "5")
    monkeypatch.setenv("BASKETWEAVE_ORCHESTRATION__RETRY_DELAY_SECONDS", "7")
    settings = run_settings(profile=None, data=None, events="new.parquet", catalog=None, project=None)
    assert (settings.source.profile, settings.source.events) == ("contract", "new.parquet")
    assert (settings.orchestration.retries, settings.orchestration.retry_delay_seconds) == (0, 7)


def test_parameters_take_the_form_of_the_schema() -> None:
    assert run_parameters(as_of=None, day=None) == {"as_of": None, "day": None}
    assert run_parameters(as_of="2024-02-01", day="20240131") == {
        "as_of": "2024-02-01T00:00:00+00:00",
        "day": "2024-01-31",
    }
    with pytest.raises(SettingsError):
        run_parameters(as_of=None, day="2024-02-30")
