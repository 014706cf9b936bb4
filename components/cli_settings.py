"""`basketweave settings`: every setting with its default and its description, the source of docs/settings.md."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.core.settings import ENV_PREFIX, Settings, load_settings

INTRODUCTION = f"""# Settings

Every setting can stand in `basketweave.toml` (`[train]` and under it `seed = 7`) or in the environment
(`{ENV_PREFIX}TRAIN__SEED=7`), which wins. A name that is not here is an error that tells the nearest one.

This page is written by `basketweave settings --markdown`.
"""


class Setting(NamedTuple):
    """One leaf of `Settings`."""

    name: str
    kind: str
    default: str
    description: str


def print_settings(*, markdown: bool) -> None:
    if markdown:
        # Wide and plain: a table of Markdown must not be folded.
        Console(width=100_000, soft_wrap=True).out(settings_page(), highlight=False, end="")
        return
    table = Table("setting", "default", "what it does", box=None, pad_edge=False)
    for setting in all_settings():
        table.add_row(Text(setting.name, style="bold"), Text(setting.default, style="dim"), Text(setting.description))
    Console(highlight=False).print(table)


def print_api_key(*, name: str, roles: Sequence[str]) -> None:
    """A new key on standard output, once; its digest as lines of basketweave.toml on standard error.

    Raises SettingsError for a name or a role that no key can have.
    """
    key = f"bw_{secrets.token_urlsafe(32)}"
    digest = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
    load_settings(serve={"api_keys": [{"digest": digest, "roles": list(roles), "name": name}]})
    Console(highlight=False).print(Text(key), soft_wrap=True)
    entry = f'{{digest = "{digest}", roles = {json.dumps(list(roles))}, name = "{name}"}}'
    console = Console(stderr=True, highlight=False)
    console.print(Text("\nThis is the only time that the key is shown. Add to basketweave.toml, under [serve]:\n"))
    console.print(Text(f"api_keys = [{entry}]"), soft_wrap=True)


def settings_page() -> str:
    """The text of docs/settings.md."""
    lines = [INTRODUCTION]
    section: str | None = None
    for setting in all_settings():
        head, _, _ = setting.name.rpartition(".")
        if head != section:
            section = head
            lines.append(f"\n## {head or 'General'}\n")
            if head:
                lines.append(f"{_description(Settings.model_fields[head].annotation)}\n")
            lines += ["| setting | type | default | what it does |", "|---|---|---|---|"]
        cells = (f"`{setting.name}`", f"`{setting.kind}`", f"`{setting.default}`", setting.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def all_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Setting]:
    """The leaves of `model`, plain ones before sections, in order of declaration."""
    nested = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested.append((name, field.annotation))
        else:
            yield Setting(prefix + name, _kind(field), _default(field), " ".join((field.description or "").split()))
    for name, section in nested:
        yield from all_settings(section, f"{prefix}{name}.")


def _kind(field: FieldInfo) -> str:
    return _type_name(field.annotation)


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return "null" if annotation is type(None) else annotation.__name__
    text = str(annotation)
    for module in ("typing.", "pathlib.", "pydantic.types.", "components.core.sections.live."):
        text = text.replace(module, "")
    return text.replace("None", "null")


def _default(field: FieldInfo) -> str:
    default = field.default
    return default if isinstance(default, str) else json.dumps(default, default=str)


def _description(section: Any) -> str:
    return " ".join((section.__doc__ or "").split())
