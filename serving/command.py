"""`python -m serving --bundle PATH --port 3000`, or `python -m serving` to follow the deploy pointer.

Checks what can be checked before a worker starts, tells others where the service is (service.json in the project's
home), and runs BentoML in this process until SIGTERM or SIGINT.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from components.core.artifact import MANIFEST
from components.core.errors import ArtifactError, BusyError, SettingsError
from components.core.libraries import QUIET
from components.core.live import (
    ServiceRecord,
    find_service,
    last_service,
    process_start,
    write_service_record,
)
from components.core.settings import Settings, child_environment, load_settings
from serving.network import address_of, is_loopback

# A server of several workers: one thread of arithmetic each.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# glibc would keep a heap for each of a worker's threads, and what loading a bundle took in one of them for good.
FEW_HEAPS = {"MALLOC_ARENA_MAX": "2"}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def serve(
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of the bundle to serve; the deploy pointer's when left out.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="A free one when left out.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: settings.deploy.host]")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. [default: settings.serve.workers]")] = None,
) -> None:
    """Serve recommendations over HTTP."""
    settings = load_settings()
    changes = {"workers": workers, "bundle": str(bundle.absolute()) if bundle else None}
    serve_settings = settings.serve.model_copy(update={name: value for name, value in changes.items() if value})
    settings = settings.model_copy(update={"serve": serve_settings, "home": settings.home.absolute()})
    address = address_of(host or settings.deploy.host)
    if not is_loopback(address) and not settings.serve.api_keys:
        raise SettingsError(
            f"The service listens on {address} only with API keys. Make one by 'basketweave api-key' and add its "
            "line to basketweave.toml, or leave --host at 127.0.0.1."
        )
    if settings.serve.bundle is not None and not (Path(settings.serve.bundle) / MANIFEST).is_file():
        raise ArtifactError(f"{settings.serve.bundle} is no bundle: it has no {MANIFEST}.")
    record = _record(settings, address, port)
    Console(stderr=True).print(f"Basketweave serves at {record.url} (Ctrl+C stops it).", highlight=False)
    _run(settings, record)


def _record(settings: Settings, address: str, port: int | None) -> ServiceRecord:
    """Choose a port and tell others where the service is; what another live service wrote is left alone.

    The record stays when the service ends: a dead process's record is never taken for a live service, and the next
    start takes the same port from it.
    """
    other = find_service(settings)
    follows_pointer = settings.serve.bundle is None
    if other is not None and follows_pointer:
        raise BusyError(
            f"The project '{settings.project}' is served already, at {other.url} (process {other.pid}). "
            "Stop it by 'basketweave stop', or serve another bundle by --bundle."
        )
    record = ServiceRecord(
        host=address,
        port=port or settings.deploy.port or _free_port(settings, address),
        pid=os.getpid(),
        started_at=process_start(os.getpid()),
        workers=settings.serve.workers,
        follows_pointer=follows_pointer,
    )
    if not _can_listen(record.host, record.port):
        raise SettingsError(f"Port {record.port} of {record.host} is taken or not allowed. Choose another by --port.")
    if other is None:
        write_service_record(settings, record)
    return record


def _run(settings: Settings, record: ServiceRecord) -> None:
    """Run BentoML's arbiter and workers until a signal. Each service has a BentoML home of its own: BentoML empties
    its metrics folder when it starts, and would take another service's counters with it."""
    folder = settings.project_home / "service" / str(record.pid)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ.update(
        child_environment(settings) | ONE_THREAD | FEW_HEAPS | QUIET | {"BENTOML_HOME": str(folder / "bentoml")}
    )
    try:
        from serving.service import RecommenderService

        RecommenderService.serve_http(host=record.host, port=record.port)  # type: ignore[attr-defined]  # a Service
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port(settings: Settings, address: str) -> int:
    """The port of the last service if it is free, so that bookmarks live on; else any free one."""
    last = last_service(settings)
    if last is not None and _can_listen(address, last.port):
        return last.port
    with _socket(address) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _can_listen(address: str, port: int) -> bool:
    with _socket(address) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _socket(address: str) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
