"""`Settings`: the only reader of the environment and of `basketweave.toml`.

Order, first wins: keyword arguments, environment (`BASKETWEAVE_TRAIN__SEED=7`), `basketweave.toml`, defaults.
An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from components.core import sections
from components.core.errors import SettingsError
from components.core.hashing import json_sha256

ENV_PREFIX = "BASKETWEAVE_"
# Read by tests, benchmarks and the Makefile, never by the pipeline.
FOREIGN_VARIABLES = frozenset({"BASKETWEAVE_CONFIG", "BASKETWEAVE_DATA"})
# Kubernetes puts these into every pod beside a Service called 'basketweave…'.
SERVICE_LINK = re.compile(r"BASKETWEAVE(_[A-Z0-9]+)*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")


class Settings(BaseSettings):
    """Everything that can be set. Build it with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    home: Path = Path(".basketweave")
    """Folder of everything that a laptop run leaves: artifacts, Airflow's and MLflow's databases, logs, pids."""
    project: str = Field(default="demo", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Name of the shop; projects share a home and nothing else."""
    storage_root: str | None = None
    """fsspec URI under which artifacts are kept; None: a folder in `home`."""
    source: sections.SourceSettings = sections.SourceSettings()
    split: sections.SplitSettings = sections.SplitSettings()
    validation: sections.ValidateSettings = sections.ValidateSettings()
    features: sections.FeatureSettings = sections.FeatureSettings()
    feature_store: sections.FeatureStoreSettings = sections.FeatureStoreSettings()
    graph: sections.GraphSettings = sections.GraphSettings()
    train: sections.TrainSettings = sections.TrainSettings()
    evaluate: sections.EvaluateSettings = sections.EvaluateSettings()
    deploy: sections.DeploySettings = sections.DeploySettings()
    rollout: sections.RolloutSettings = sections.RolloutSettings()
    serve: sections.ServeSettings = sections.ServeSettings()
    monitor: sections.MonitorSettings = sections.MonitorSettings()
    tracking: sections.TrackingSettings = sections.TrackingSettings()
    orchestration: sections.OrchestrationSettings = sections.OrchestrationSettings()
    metrics: sections.MetricsSettings = sections.MetricsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_path())
        return init_settings, EnvSettingsSource(settings_cls), toml

    @property
    def project_home(self) -> Path:
        return self.home.absolute() / self.project

    @property
    def artifact_root(self) -> str:
        """Where this project's artifacts live: an absolute local path or an fsspec URI."""
        if self.storage_root is None:
            return str(self.project_home / "artifacts")
        return f"{self.storage_root.rstrip('/')}/{self.project}"

    @property
    def tracking_uri(self) -> str:
        # MLflow refuses the file backend; SQLite needs no server.
        return self.tracking.uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"

    def section_sha256(self, names: Iterable[str]) -> str:
        """Hash of the named sections: the part of a step's key that settings decide."""
        return json_sha256({name: _plain(getattr(self, name)) for name in sorted(names)})

    def environment(self) -> dict[str, str]:
        """The variables with which a child process reads these very settings, secrets included."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {ENV_PREFIX + name.upper(): _as_variable(value) for name, value in values.items() if value is not None}


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with `settings` in place of what it says of them; paths become absolute."""
    kept = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    return kept | settings.model_copy(update={"home": settings.home.absolute()}).environment()


def load_settings(**overrides: Any) -> Settings:
    """Read settings; every mistake becomes one `SettingsError` sentence."""
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except UnreadableVariable as error:
        raise SettingsError(
            f'{_unreadable_variable(os.environ)} must be JSON, such as \'["first", "second"]\' for a list.'
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{_config_path()} is not valid TOML: {error}.") from error


def _config_path() -> Path:
    return Path(os.environ.get(f"{ENV_PREFIX}CONFIG", "basketweave.toml"))


def _is_setting(name: str) -> bool:
    return name.upper().startswith(ENV_PREFIX) and name.upper() not in FOREIGN_VARIABLES


def _as_variable(value: Any) -> str:
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump(mode="python"), default=_reveal)
    return str(value)


def _reveal(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _known_keys(model: type[BaseModel] = Settings, prefix: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _known_keys(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name)


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    sections_ = {ENV_PREFIX + key[0].upper() for key in _known_keys()}
    known = sections_ | {ENV_PREFIX + "__".join(key).upper() for key in _known_keys()} | FOREIGN_VARIABLES
    for name in environ:
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known and not SERVICE_LINK.fullmatch(name):
            raise SettingsError(f"The environment variable {name} is no setting.{_nearest(name.upper(), known)}")


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = [*Settings.model_fields, *(".".join(one) for one in _known_keys())]
        return f"'{key}' is no setting.{_nearest(key, known)}"
    shown = "" if _may_hold_secret(problem["loc"]) else f" is {problem['input']!r}"
    return f"The setting '{key}'{shown}: {problem['msg']}."


def _may_hold_secret(location: Iterable[str | int]) -> bool:
    """Whether what was given at this place may not be shown."""
    model: type[BaseModel] = Settings
    for part in location:
        field = model.model_fields[str(part)]
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return "SecretStr" in str(field.annotation)
        model = field.annotation
    return any("SecretStr" in str(field.annotation) for field in model.model_fields.values())


def _unreadable_variable(environ: Mapping[str, str]) -> str:
    """The variable that is no JSON though its setting is a section or a list."""
    keys = [*_known_keys(), *((section,) for section in Settings.model_fields)]
    wanting_json = {ENV_PREFIX + "__".join(key).upper() for key in keys if _is_compound(key)}
    for name, value in environ.items():
        if name.upper() in wanting_json and not _is_json(value):
            return f"The environment variable {name}"
    return "An environment variable that sets a section or a list"


def _is_compound(key: Iterable[str]) -> bool:
    annotation: Any = Settings
    for part in key:
        annotation = annotation.model_fields[part].annotation
    return get_origin(annotation) is tuple or (isinstance(annotation, type) and issubclass(annotation, BaseModel))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else " See docs/settings.md for all of them."
