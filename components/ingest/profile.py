"""Profiles: how one known log maps to the contract. A profile is a TOML file; docs/data-contract.md explains it.

A mapping's value is a column of the source (`user_id = "household_id"`), a constant (`{ value = "purchase" }`) or a
DuckDB expression over the source's columns (`{ sql = "..." }`).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.core.errors import SettingsError

PROFILES = Path(__file__).parent / "profiles"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Part):
    """The same text in every row."""

    value: str


class Sql(_Part):
    """A DuckDB expression over the columns of the source."""

    sql: str


Mapped = str | Value | Sql


class Package(_Part):
    """An installed Python package that carries the data as files."""

    name: str
    extra: str
    folder: str


class EventMapping(_Part):
    files: str | None = None
    """File or glob in the data folder or package; None: `source.events` names them."""
    columns: Mapping[str, Mapped] = {}


class CatalogMapping(_Part):
    files: str | None = None
    query: str | None = None
    """SELECT over the views `events_source` and `catalog_source`, for a log whose items have no file of their own."""
    columns: Mapping[str, Mapped] = {}
    attributes: Mapping[str, Mapped] = {}


class Defect(_Part):
    """A known flaw of the log, counted at each whole ingest."""

    name: str
    sentence: str
    count: str
    """A scalar DuckDB expression over the views `events_source` and `catalog_source`."""


class Profile(_Part):
    name: str
    title: str
    licence: str
    same_names: bool = False
    """Columns that already bear a contract name are taken without being mapped."""
    package: Package | None = None
    events: EventMapping = EventMapping()
    catalog: CatalogMapping | None = None
    defects: tuple[Defect, ...] = ()
    abbreviations: Mapping[str, str] = Field(default={})
    """Words that the SQL function `readable` writes out: FRZN = "frozen"."""


def profile_names() -> list[str]:
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def profile_path(name: str) -> Path:
    """File of a shipped profile, or of one of the user's own (a path that ends in .toml)."""
    path = Path(name) if name.endswith(".toml") else PROFILES / f"{name}.toml"
    if path.is_file():
        return path
    if name.endswith(".toml"):
        raise SettingsError(f"source.profile names the file {name}, which does not exist.")
    raise SettingsError(
        f"source.profile is '{name}'; known: {', '.join(profile_names())}, or a path to a .toml file."
        f"{did_you_mean(name, profile_names())}"
    )


def load_profile(name: str) -> Profile:
    path = profile_path(name)
    try:
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise SettingsError(f"{path}: '{key}': {problem['msg']}. See docs/data-contract.md, 'Profiles'.") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean …?' with the nearest known name, or nothing."""
    match = nearest(name, known)
    return f" Did you mean '{match}'?" if match else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` most likely misspells: case, '_', '-' and blanks do not count."""
    plain = {_plain(candidate): candidate for candidate in known}
    matches = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.7)
    return plain[matches[0]] if matches else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
