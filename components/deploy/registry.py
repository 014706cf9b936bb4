"""The model registry: MLflow's, on SQLite or a server. Keeps which bundle is `champion`, which was before, and which is
on its way. A version is pinned to its bundle by the content hash of the bundle's manifest, in a tag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.tracking import MlflowClient

from components.core.artifact import Artifact, ArtifactRef, Manifest
from components.core.errors import ArtifactError
from components.core.rollout import the_one
from components.core.settings import Settings
from components.core.store import Store

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous"

# What MLflow answers where the model has no such alias, and where there is no such model.
NO_SUCH_ALIAS = {ErrorCode.Name(INVALID_PARAMETER_VALUE), ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)}

SHA256_TAG = "bundle_sha256"


@dataclass(frozen=True)
class RegisteredVersion:
    """A bundle's version of the registered model."""

    name: str
    version: str
    alias: str | None


class Registry:
    """The versions of one registered model; a version is one bundle, found again by its hash."""

    def __init__(self, settings: Settings) -> None:
        uri = settings.tracking_uri
        if uri.startswith("sqlite:///"):
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self.name = settings.deploy.model_name
        self._experiment = settings.tracking.experiment
        self._project = settings.project
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def register(self, bundle: Manifest, *, evaluation: Manifest) -> str:
        """The bundle's version, made where it has none. Nothing is copied: the source is the artifact's own place."""
        if (known := self.find(bundle.content_sha256)) is not None:
            return known
        try:
            self._client.create_registered_model(self.name, description="Bundles that the gate has promoted.")
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
        version = self._client.create_model_version(
            self.name,
            source=bundle.uri if "://" in bundle.uri else Path(bundle.uri).absolute().as_uri(),
            run_id=self._training_run(bundle.run_id),
            tags={
                SHA256_TAG: bundle.content_sha256,
                "run_id": bundle.run_id,
                "as_of": bundle.as_of.isoformat(),
                "evaluation_sha256": evaluation.content_sha256,
                "verdict": str(evaluation.statistics["verdict"]),
            },
            description=evaluation.summary,
        )
        return str(version.version)

    def _training_run(self, pipeline_run_id: str) -> str | None:
        """The tracked training of a pipeline run: training names its MLflow run after it. None: it was not tracked."""
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        named = f"attributes.run_name = '{pipeline_run_id}' and attributes.status = 'FINISHED'"
        runs = self._client.search_runs(
            [experiment.experiment_id],
            filter_string=f"{named} and tags.project = '{self._project}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return runs[0].info.run_id if runs else None

    def find(self, sha256: str) -> str | None:
        """The newest version of a bundle."""
        found = self._client.search_model_versions(f"name='{self.name}' and tags.{SHA256_TAG}='{sha256}'")
        return str(max((int(one.version) for one in found), default=0) or "") or None

    def holder(self, alias: str) -> str | None:
        """The version that holds an alias."""
        try:
            return str(self._client.get_model_version_by_alias(self.name, alias).version)
        except MlflowException as error:
            if error.error_code in NO_SUCH_ALIAS:
                return None
            raise

    def crown(self, sha256: str) -> None:
        """Make a bundle's version the champion, and the champion before it `previous`; it is a challenger no more."""
        version, before = self._pinned(sha256), self.holder(CHAMPION)
        if before != version:
            self._hold(PREVIOUS, before)
            self._hold(CHAMPION, version)
        if self.holder(CHALLENGER) == version:
            self._hold(CHALLENGER, None)

    def challenge(self, sha256: str) -> None:
        """Make a bundle's version the challenger."""
        self._hold(CHALLENGER, self._pinned(sha256))

    def stand_down(self, sha256: str) -> None:
        """The bundle is no challenger any more."""
        if (version := self.find(sha256)) is not None and self.holder(CHALLENGER) == version:
            self._hold(CHALLENGER, None)

    def restore(self, champion: str, *, previous: str | None) -> None:
        """Make the aliases say what a rollback did; `previous` None: nothing is left to go back to."""
        self._hold(CHAMPION, self._pinned(champion))
        self._hold(PREVIOUS, self.find(previous) if previous else None)

    def bundle(self, prefix: str, store: Store) -> ArtifactRef:
        """The registered bundle whose hash begins with `prefix`, opened where its version says that it lies.

        Raises StopError where no version or several have such a hash, ArtifactError where the bundle there is another.
        """
        versions = self._client.search_model_versions(f"name='{self.name}'")
        source_of = {one.tags[SHA256_TAG]: one.source for one in versions if SHA256_TAG in one.tags}
        sha256 = the_one(prefix, source_of, what="registered bundle")
        uri = str(source_of[sha256])
        if uri.startswith("file://"):
            uri = unquote(urlsplit(uri).path)
        return Artifact.open(store, uri, sha256=sha256, kind="bundle").manifest.ref()

    def _pinned(self, sha256: str) -> str:
        """The bundle's version, its tag looked at again: an alias never points to what somebody has retagged."""
        version = self.find(sha256)
        if version is None:
            raise ArtifactError(f"Bundle {sha256[:12]} is not registered as '{self.name}'. Deploy it.")
        tagged = self._client.get_model_version(self.name, version).tags.get(SHA256_TAG)
        if tagged != sha256:
            raise ArtifactError(f"Version {version} of '{self.name}' is not of bundle {sha256[:12]}: its tag differs.")
        return version

    def _hold(self, alias: str, version: str | None) -> None:
        if version is not None:
            self._client.set_registered_model_alias(self.name, alias, version)
        elif self.holder(alias) is not None:
            self._client.delete_registered_model_alias(self.name, alias)
