"""The whole pipeline as on a cluster: a pod a step over S3, Airflow and Feast on PostgreSQL, features in Redis.

The servers are real, no disk is shared; the chart's own ConfigMap is the settings. Then a service of another 'pod'
answers from the bucket and Redis alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest
import redis
import services
import yaml
from documented import BASKETWEAVE, run_block, shell_blocks
from needs import missing

from charts.check.helm import NoHelmError, helm_path, render
from components.core.command import PIPELINE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KEY = "a-long-random-key"
NAME = "shop-basketweave"
VALUES: dict[str, Any] = {
    "image": {"repository": "basketweave-serving"},
    "apiKeys": {"existingSecret": "keys"},
    "redis": {"existingSecret": "stores"},
    "postgresql": {"existingSecret": "stores"},
    "settings": {
        "project": "my-shop",
        "source": {"profile": "contract"},
        "split": {"window_days": 14, "training_windows": 1},
        "train": {"max_epochs": 1, "embedding_dim": 16},
        "evaluate": {"bootstrap_resamples": 200},
        "serve": {"workers": 1},
        "orchestration": {
            "mode": "kubernetes",
            "namespace": "shop",
            "image": "basketweave-components",
            "train_image": "basketweave-components-cuda",
            "train_gpus": 1,
            "retries": 0,
            "config_map": f"{NAME}-environment",
            "secret": "pipeline",
        },
    },
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the run left."""

    bucket: services.Bucket
    folder: Path
    manifests: dict[tuple[str, str], dict[str, Any]]
    secrets: dict[str, dict[str, str]]
    redis_url: str
    airflow_url: str
    feast_url: str
    done: subprocess.CompletedProcess[str]

    @property
    def pods(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "journal.jsonl").read_text().splitlines()]

    @property
    def files(self) -> Any:
        """The bucket."""
        keys = self.bucket.environment
        return fsspec.filesystem(
            "s3",
            endpoint_url=self.bucket.endpoint,
            key=keys["AWS_ACCESS_KEY_ID"],
            secret=keys["AWS_SECRET_ACCESS_KEY"],
            use_listings_cache=False,
        )

    def json(self, relative: str) -> Any:
        return json.loads(self.files.cat_file(f"{self.bucket.name}/artifacts/my-shop/{relative}"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        helm_path()
    except NoHelmError as error:
        missing(f"no Helm: {error}")
    folder = tmp_path_factory.mktemp("cluster")
    with (
        services.object_store(folder / "s3") as bucket,
        services.redis(folder / "redis") as redis_url,
        services.postgres("airflow", "feast", "mlflow") as database,
    ):
        upload_world(bucket, folder / "world")
        settings = VALUES["settings"]
        source = {"events": f"{bucket.uri}/log/events/*.parquet", "catalog": f"{bucket.uri}/log/catalog.parquet"}
        values = {
            **VALUES,
            "storage": {"uri": f"{bucket.uri}/artifacts", "credentialsSecret": "bucket"},
            "settings": {**settings, "source": {**settings["source"], **source}},
        }
        (folder / "values.yaml").write_text(yaml.safe_dump(values))
        rendered = render([folder / "values.yaml"])
        assert rendered.error == ""
        manifests = {(one["kind"], one["metadata"]["name"]): one for one in rendered.manifests}
        stores = {
            "BASKETWEAVE_FEATURE_STORE__ONLINE_URL": redis_url,
            "BASKETWEAVE_FEATURE_STORE__REGISTRY_URL": database("feast"),
        }
        pipeline = {**bucket.environment, **stores, "BASKETWEAVE_TRACKING__URI": database("mlflow")}
        secrets = {
            "pipeline": pipeline,
            "bucket": dict(bucket.environment),
            "stores": {"redis-url": redis_url, "registry-url": database("feast")},
            "keys": {"api-keys": json.dumps([KEY])},
        }
        config_map = manifests["ConfigMap", f"{NAME}-environment"]["data"]
        (folder / "sandboxes").mkdir()
        described = {
            "config_maps": {f"{NAME}-environment": config_map},
            "secrets": secrets,
            "sandboxes": str(folder / "sandboxes"),
            "journal": str(folder / "journal.jsonl"),
            "states": str(folder / "states.json"),
        }
        (folder / "cluster.json").write_text(json.dumps(described))
        # The worker of Airflow: its image has no home of ours, and the same ConfigMap and Secret.
        airflow = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BASKETWEAVE_")},
            **config_map,
            **pipeline,
            "BASKETWEAVE_HOME": str(folder / "worker"),
            "HOME": str(folder / "worker"),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database("airflow").replace(
                "postgresql://", "postgresql+psycopg2://"
            ),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "airflow" / "logs"),
            # No world of a few hundred people shows the lead over the baselines that the gate asks for.
            "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "orchestration" / "lenient_gate"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        }
        (folder / "worker").mkdir()
        command = [sys.executable, str(Path(__file__).with_name("cluster.py")), str(folder / "cluster.json")]
        done = subprocess.run(command, env=airflow, cwd=folder, capture_output=True, text=True, check=False)
        yield Cluster(
            bucket=bucket,
            folder=folder,
            manifests=manifests,
            secrets=secrets,
            redis_url=redis_url,
            airflow_url=database("airflow"),
            feast_url=database("feast"),
            done=done,
        )


def upload_world(bucket: services.Bucket, world: Path) -> None:
    size = ["--users", "300", "--items", "200", "--days", "60", "--sessions-per-user-day", "0.3", "--seed", "7"]
    made = [sys.executable, "-m", "components.cli", "simulate", "--out", str(world), *size]
    subprocess.run(made, check=True, capture_output=True, cwd=ROOT)
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=bucket.endpoint,
        aws_access_key_id=bucket.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=bucket.environment["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    for file in [world / "catalog.parquet", *sorted((world / "events").glob("*.parquet"))]:
        client.upload_file(str(file), bucket.name, f"log/{file.relative_to(world).as_posix()}")


def test_each_step_is_a_pod_that_runs_through_with_no_disk_but_its_own(cluster: Cluster) -> None:
    assert cluster.done.returncode == 0, cluster.done.stdout[-3000:] + cluster.done.stderr[-3000:]
    states = json.loads((cluster.folder / "states.json").read_text())
    for dag, steps in (("recommender", PIPELINE), ("monitoring", ("ingest", "validate", "monitor"))):
        assert states[dag]["run"] == "success", [pod["output"] for pod in cluster.pods if pod["returncode"]]
        assert sorted(pod["task"] for pod in cluster.pods if pod["dag"] == dag) == sorted(steps)
    assert states["recommender"]["deploy"] == "success"
    for pod in cluster.pods:
        assert pod["written_to_image"] == [], pod["task"]
        assert pod["gpus"] == ("1" if pod["task"] == "train" else None)
    assert list((cluster.folder / "sandboxes").iterdir()) == []


def test_the_pointer_in_the_bucket_names_the_bundle_that_the_gate_promoted(cluster: Cluster) -> None:
    pointer = cluster.json("deploy/pointer.json")
    assert pointer["bundle"] == cluster.json("bundle/latest.json")
    assert pointer["bundle"]["uri"].startswith(f"{cluster.bucket.uri}/artifacts/my-shop/bundle/")


def test_the_monitor_reads_the_live_bundle_from_the_bucket_and_leaves_its_page_there(cluster: Cluster) -> None:
    [monitor] = [pod for pod in cluster.pods if pod["task"] == "monitor"]
    manifest = cluster.json(f"{cluster.json('monitoring/latest.json')['uri'].split('/my-shop/')[1]}/manifest.json")
    assert manifest["summary"] in " ".join(monitor["output"].split())
    assert manifest["statistics"]["bundle"] == cluster.json("deploy/pointer.json")["bundle"]["sha256"]
    assert {"drift.json", "drift.html"} <= {file["path"] for file in manifest["files"]}


def test_airflow_and_feast_keep_their_books_in_postgresql_and_users_are_in_redis(cluster: Cluster) -> None:
    with psycopg.connect(cluster.airflow_url) as connection:
        [runs] = connection.execute("SELECT count(*) FROM dag_run WHERE dag_id = 'recommender'").fetchone() or [0]
        assert runs == 1
    with psycopg.connect(cluster.feast_url) as connection:
        names = {name for (name,) in connection.execute("SELECT feature_view_name FROM feature_views").fetchall()}
        assert names == {"user_history", "user_statistics", "item_statistics"}
    client = redis.Redis.from_url(cluster.redis_url)
    users = cluster.json("features/latest.json")
    assert users["rows"] > 0
    assert sum(1 for _ in client.scan_iter(b"*basketweave_my_hshop", count=1000)) > 200
    assert int(client.get("basketweave_my_hshop:moment") or 0) > 0


def test_no_secret_is_in_what_kubernetes_shows_of_a_pod_or_a_release(cluster: Cluster) -> None:
    shown = json.dumps([one for key, one in cluster.manifests.items()])
    for secret in (KEY, cluster.redis_url, cluster.bucket.environment["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in shown


def test_a_service_elsewhere_answers_from_the_bucket_and_redis(cluster: Cluster, tmp_path: Path) -> None:
    toml = tomllib.loads(cluster.manifests["ConfigMap", NAME]["data"]["basketweave.toml"])
    assert toml["storage_root"] == f"{cluster.bucket.uri}/artifacts"
    with service(cluster, tmp_path) as port:
        status, answer = ask(port, "POST", "/recommend", {"user_id": known_users(cluster)[0], "k": 5})
    assert status == 200, answer
    assert answer["bundle"] == cluster.json("deploy/pointer.json")["bundle"]["sha256"]
    assert len(answer["items"]) == 5
    assert answer["source"] == "online_store"


def test_bucket_databases_and_redis_are_restored_by_the_documented_commands(cluster: Cluster, tmp_path: Path) -> None:
    _, _, keep, put_back = shell_blocks("backup.md")
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    environment = {
        **cluster.manifests["ConfigMap", f"{NAME}-environment"]["data"],
        **cluster.secrets["pipeline"],
        "BASKETWEAVE_HOME": str(tmp_path / "home"),
        "HOME": str(tmp_path),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "FEAST_URL": cluster.feast_url,
        "MLFLOW_URL": cluster.secrets["pipeline"]["BASKETWEAVE_TRACKING__URI"],
        "AIRFLOW_URL": cluster.airflow_url,
    }
    instead = {"basketweave": BASKETWEAVE}
    user, pointer = known_users(cluster)[0], cluster.json("deploy/pointer.json")
    run_block(keep, environment=environment, folder=tmp_path, instead=instead)

    cluster.files.rm(f"{cluster.bucket.name}/artifacts", recursive=True)
    redis.Redis.from_url(cluster.redis_url).flushall()
    for url in (cluster.feast_url, environment["MLFLOW_URL"], cluster.airflow_url):
        with psycopg.connect(url) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    run_block(put_back, environment=environment, folder=tmp_path, instead=instead)
    assert cluster.json("deploy/pointer.json") == pointer
    with psycopg.connect(cluster.airflow_url) as connection:
        assert connection.execute("SELECT count(*) FROM dag_run").fetchone() == (2,)
    (tmp_path / "service").mkdir()
    with service(cluster, tmp_path / "service") as port:
        status, answer = ask(port, "POST", "/recommend", {"user_id": user, "k": 5})
    assert (status, answer["bundle"], answer["source"]) == (200, pointer["bundle"]["sha256"], "online_store")


@contextmanager
def service(cluster: Cluster, folder: Path) -> Iterator[int]:
    """The Deployment's container as a process, its volumes in `folder`; yields its port when it is ready."""
    [container] = cluster.manifests["Deployment", NAME]["spec"]["template"]["spec"]["containers"]
    (folder / "basketweave.toml").write_text(cluster.manifests["ConfigMap", NAME]["data"]["basketweave.toml"])
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **cluster.secrets[container["envFrom"][0]["secretRef"]["name"]],
    }
    for entry in container["env"]:
        if "valueFrom" in entry:
            reference = entry["valueFrom"]["secretKeyRef"]
            environment[entry["name"]] = cluster.secrets[reference["name"]][reference["key"]]
        else:
            environment[entry["name"]] = entry["value"]
    # In place of the pod's volumes: the mounted TOML, and the scratch folder.
    environment |= {
        "BASKETWEAVE_CONFIG": str(folder / "basketweave.toml"),
        "BASKETWEAVE_HOME": str(folder / "home"),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    port = services.free_port()
    given = {"0.0.0.0": "127.0.0.1", container["args"][-1]: str(port)}
    command = [sys.executable, *container["command"][1:], *(given.get(part, part) for part in container["args"])]
    (folder / "empty").mkdir()
    log = folder / "empty" / "service.log"
    with services.running(command, log=log, environment=environment) as process:
        deadline = time.monotonic() + 300
        while ask(port, "GET", "/readyz")[0] != 200:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()[-3000:])
            time.sleep(0.5)
        yield port


def known_users(cluster: Cluster) -> list[str]:
    """Ids of users with features, from Redis' own keys: Feast's layout ends a key with its length, the id, the shop."""
    client = redis.Redis.from_url(cluster.redis_url)
    suffix = b"basketweave_my_hshop"
    keys = sorted(key for key in client.scan_iter(b"*" + suffix, count=1000))
    users = []
    for key in keys:
        _, _, rest = key.removesuffix(suffix).partition(b"user_id")
        if rest:
            users.append(rest[8:].decode())
    return users


def ask(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)
