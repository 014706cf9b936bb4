"""`basketweave`: the whole pipeline, its steps, its service and its scheduler from one command.

Heavy libraries are imported inside the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from components.core.command import KINDS, step_command, with_one_sentence
from components.core.settings import Settings, child_environment, load_settings
from components.simulate.command import command as simulate

app = typer.Typer(
    help="Live recommendations from a graph neural network, proved better before they serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
steps = typer.Typer(
    help="Run one step alone, on the latest artifacts of its inputs.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(steps, name="step")
for _name in KINDS:
    steps.command(_name)(step_command(_name, f"Run {_name} alone, on the latest artifacts of its inputs."))

Project = Annotated[str | None, typer.Option(help="Name of the shop. [default: the setting 'project']")]


@app.command()
def run(
    profile: Annotated[
        str | None, typer.Option(help="Source profile, such as complete_journey or online_retail.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder or file that the profile reads.")] = None,
    events: Annotated[
        str | None, typer.Option(help="Your own log: path, glob or URI of parquet, CSV or JSONL files.")
    ] = None,
    catalog: Annotated[str | None, typer.Option(help="Your own catalogue, if there is one.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Judge time as of this moment (ISO, UTC).")] = None,
    day: Annotated[str | None, typer.Option(help="Ingest this day alone (ISO date) and keep the others.")] = None,
    why: Annotated[str | None, typer.Option(help="What asked for the run; kept with it.")] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Name of the shop. [default: the setting 'project', else the profile, else 'shop']"),
    ] = None,
) -> None:
    """Run the whole pipeline once, from the log to a live service. Exit status 3: the model was not promoted."""
    from components.cli_run import run_pipeline, run_settings

    settings = run_settings(profile=profile, data=data, events=events, catalog=catalog, project=project)
    sys.exit(run_pipeline(settings, as_of=as_of, day=day, why=why))


@app.command()
def serve(
    bundle: Annotated[Path | None, typer.Option(help="Bundle to serve; what is deployed when left out.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="A free one when left out.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; other than loopback only with API keys.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    project: Project = None,
) -> None:
    """Serve recommendations over HTTP until Ctrl-C."""
    options = {"--bundle": bundle, "--port": port, "--host": host, "--workers": workers}
    given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    # The service becomes this process: it gets the signals, and its exit status is ours.
    os.execve(  # noqa: S606  # our own module, no shell
        sys.executable, [sys.executable, "-m", "serving", *given], child_environment(project_settings(project))
    )


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(help="User id.")],
    k: Annotated[int, typer.Option("--k", min=1, max=100, help="Length of the list.")] = 10,
    project: Project = None,
) -> None:
    """Ask the live service for a user's recommendations."""
    from components.cli_status import print_recommendations

    print_recommendations(project_settings(project), user=user, k=k)


@app.command()
def status(project: Project = None) -> None:
    """Last runs, live bundle, health of the service, and whether Airflow runs."""
    from components.cli_status import print_status

    print_status(project_settings(project))


@app.command()
def rollback(
    to: Annotated[
        str | None, typer.Option(help="Hash of a registered bundle, or its beginning; the one before when left out.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with the bar.")] = "rolled back by hand",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for every worker.")] = 60,
    project: Project = None,
) -> None:
    """Take the live bundle back, or a challenger that is on its way, and wait until every worker has followed."""
    from components.cli_rollout import print_rollback

    print_rollback(project_settings(project), to=to, reason=reason, timeout_seconds=timeout)


@app.command()
def unbar(
    bundle: Annotated[str, typer.Argument(help="Hash of the barred bundle, or its beginning.")],
    project: Project = None,
) -> None:
    """Let a bundle that was rolled back be promoted again."""
    from components.cli_rollout import print_unbar

    print_unbar(project_settings(project), prefix=bundle)


@app.command()
def stop() -> None:
    """End what was started here: the services of every project, and Airflow."""
    from components.cli_status import stop_everything

    stop_everything(load_settings())


@app.command()
def airflow(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="A free one when left out.")] = None,
    project: Project = None,
) -> None:
    """Start Airflow's scheduler and web page on loopback, with the DAGs on schedule."""
    from components.cli_status import start_airflow

    start_airflow(project_settings(project), port=port)


@app.command("alert-webhook")
def alert_webhook(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0: a free one.")] = 9099,
    airflow_url: Annotated[
        str | None,
        typer.Option(
            "--airflow", help="Airflow's address; runs are started by its REST API. [default: the one of this home]"
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with a token of Airflow's API.")] = None,
    alert: Annotated[
        list[str] | None, typer.Option(help="Alert that starts a run. [default: BasketweaveDrift]")
    ] = None,
    cooldown_minutes: Annotated[float, typer.Option(min=0, help="At most one run in this time.")] = 720,
    project: Project = None,
) -> None:
    """Start a run of the pipeline when Alertmanager sends an alert to /alerts."""
    from components.cli_status import receive_alerts

    receive_alerts(
        project_settings(project),
        port=port,
        airflow_url=airflow_url,
        token_file=token_file,
        alerts=alert or ["BasketweaveDrift"],
        cooldown_minutes=cooldown_minutes,
    )


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="As docs/settings.md.")] = False,
) -> None:
    """Every setting, its default and what it does."""
    from components.cli_settings import print_settings

    print_settings(markdown=markdown)


@app.command("api-key")
def api_key(
    name: Annotated[str, typer.Option(help="Who gets it: lower-case letters, digits and hyphens.")] = "shop",
    role: Annotated[
        list[str] | None, typer.Option(help="recommend, feedback or admin; may be given again. [default: recommend]")
    ] = None,
) -> None:
    """Make an API key: shows it once, and the line of the settings that lets it in."""
    from components.cli_settings import print_api_key

    print_api_key(name=name, roles=role or ["recommend"])


@app.command()
def backup(
    folder: Annotated[str, typer.Argument(help="An empty folder, or an fsspec URI such as s3://bucket/2024-05-01.")],
    project: Project = None,
) -> None:
    """Copy artifacts, pointers and databases of a project; nothing has to be stopped."""
    from components.core.backup import backup as copy

    done = copy(project_settings(project), folder)
    typer.echo(f"{done.files:,} files, {done.size_bytes / 1e6:,.1f} MB, in {folder}")


@app.command()
def restore(
    folder: Annotated[str, typer.Argument(help="What 'basketweave backup' wrote.")], project: Project = None
) -> None:
    """Put a backup back where nothing is, every file checked; the deploy pointer last."""
    from components.core.backup import restore as put_back

    settings = project_settings(project)
    done = put_back(settings, folder)
    typer.echo(f"{done.files:,} files, {done.size_bytes / 1e6:,.1f} MB, under {settings.artifact_root}")


app.command("simulate")(simulate)


def project_settings(project: str | None) -> Settings:
    return load_settings(project=project) if project else load_settings()


def main() -> None:
    with_one_sentence(app, prog_name="basketweave")


if __name__ == "__main__":
    main()
